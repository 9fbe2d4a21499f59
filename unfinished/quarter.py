import torch, zlib
from rossam_core import build_model
from rossam_core.model.checkpoints import load_checkpoint, save_weights
from rossam_core.training.mirrors import _mirrorables, _corners, mirror_weights
m=build_model('sam','vit_t',checkpoint=None); load_checkpoint(m,'run2/sam.safetensors')
before={k:v.clone() for k,v in m.state_dict().items()}
with torch.no_grad():
    for w,_,axes in _mirrorables(m):
        if axes.channels:
            a=axes.channels[0]; p=torch.arange(w.shape[a]); w.index_fill_(a,p[p%4!=0],0.)
    _corners(m)[1].weights.zero_()
save_weights(m,'vit_t_sam_quarter.safetensors',{'samples':'46400','phase':'sam'},half=True)
n=build_model('sam','vit_t',checkpoint=None); load_checkpoint(n,'vit_t_sam_quarter.safetensors'); mirror_weights(n)
print(max(float((v-before[k]).abs().max()) for k,v in n.state_dict().items() if v.is_floating_point()), max(float(((v-before[k]).abs()/(before[k].abs()+1e-3)).max()) for k,v in n.state_dict().items()))
d=open('vit_t_sam_quarter.safetensors','rb').read(); print(len(d),len(zlib.compress(d)))
