import json,sys
for l in open(sys.argv[1]):
    r=json.loads(l); print(r['phase'],r['samples'],r['seconds'],'lr %.1e'%r['lr'],{k[9:]:round(v,3) for k,v in r.items() if k.startswith('held_out')},'agree',r.get('train_agreement'),'mask',r['train_mask'],'rho',r['predicted_iou_rank_correlation'],'spread',round(r['embedding_spread'],2))
