// A box and points over an image, edited by mouse, touch and keyboard. All coordinates are frame pixels.
// Traits: image (PNG of `region`), region [x0, y0, x1, y1], prompt {box: [x0, y0, x1, y1] or [], points: [[x, y, 0|1]]},
// points_off (reason why points are refused, or ""), answered (counts answers, so that a drag sends one at a time).
const TOOLS = { box: "Box", positive: "+ Point", negative: "− Point" };
const COLOURS = ["#d55e00", "#009e73"];

function render({ model, el }) {
  let box = [], points = [], tool = "box", selected = "box", drag = null, waiting = false, sent = "", address = "";
  const make = (tag, parent, properties = {}) => parent.appendChild(Object.assign(document.createElement(tag), properties));
  const root = make("div", el, { className: "rossam-prompt" });
  root.dataset.lmSuppressShortcuts = "true";  // keys belong to the prompt, not to JupyterLab
  const bar = make("div", root, { className: "rossam-bar" });
  const stage = make("div", root, { className: "rossam-stage" });
  const hint = make("div", root, { className: "rossam-hint" });
  const image = make("img", stage, { alt: "The window with the masks of all methods", draggable: false });
  const svg = stage.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "svg"));
  svg.setAttribute("tabindex", "0");
  svg.setAttribute("aria-label", "Prompt: drag to draw, move or resize the box; Delete removes what is selected");
  const buttons = Object.entries(TOOLS).map(([name, textContent]) =>
    make("button", bar, { type: "button", textContent, name, onclick: () => { tool = name; draw(); } }));
  make("button", bar, { type: "button", textContent: "Delete", name: "delete", onclick: () => remove() });

  const unit = () => (model.get("region")[2] - model.get("region")[0]) / (svg.clientWidth || 1);  // frame px per screen px
  const inFrame = ({ clientX, clientY }) => {
    const [x0, y0, x1, y1] = model.get("region"), { left, top, width, height } = svg.getBoundingClientRect();
    const clip = (value, low, high) => Math.min(Math.max(value, low), high);
    return [clip(x0 + (clientX - left) / width * (x1 - x0), x0, x1), clip(y0 + (clientY - top) / height * (y1 - y0), y0, y1)];
  };
  const tidy = (value) => Math.round(value * 100) / 100;

  function send(final = true) {
    const prompt = { box: box.map(tidy), points: points.map((point) => point.map(tidy)) }, text = JSON.stringify(prompt);
    if ((waiting && !final) || text === sent) return;
    [waiting, sent] = [true, text];
    model.set("prompt", prompt);
    model.save_changes();
  }

  function hit([x, y], reach) {  // what a pointer at (x, y) takes hold of
    const index = points.findIndex(([px, py]) => Math.hypot(px - x, py - y) <= reach);
    if (index >= 0) return { point: index };
    if (tool !== "box" || !box.length) return {};
    const sides = [x, y].map((value, axis) => {
      const low = box[axis], high = box[axis + 2], inner = Math.min(reach, (high - low) / 4);
      if (value < low - reach || value > high + reach) return "outside";
      if (value <= low + inner) return axis;
      return value >= high - inner ? axis + 2 : "inside";
    });
    if (sides.includes("outside")) return {};
    const edges = sides.filter(Number.isInteger);
    return edges.length ? { edges } : { move: true };
  }
  const reachOf = (event) => (event.pointerType === "touch" ? 18 : 8) * unit();

  function cursor(event) {
    const target = hit(inFrame(event), reachOf(event)), edges = target.edges ?? [];
    const diagonal = edges.join() === "0,1" || edges.join() === "2,3" ? "nwse-resize" : "nesw-resize";
    svg.style.cursor = edges.length === 2 ? diagonal : edges.length ? ["ew-resize", "ns-resize"][edges[0] % 2]
      : target.move ? "move" : "point" in target ? "grab" : "crosshair";
  }

  function add(place, label) {
    points = [...points, [...place, label]];
    selected = points.length - 1;
  }

  svg.onpointerdown = (event) => {
    if (event.button) return;
    event.preventDefault();
    svg.focus({ preventScroll: true });
    svg.setPointerCapture(event.pointerId);
    const start = inFrame(event), target = hit(start, reachOf(event)), allowed = !model.get("points_off");
    const negative = event.shiftKey || event.altKey || tool === "negative";
    if (!("point" in target) && allowed && (tool !== "box" || negative)) {
      add(start, negative ? 0 : 1);
      target.point = selected;
    }
    selected = target.point ?? "box";
    drag = { ...target, start, box: [...box], moved: "point" in target, at: [event.clientX, event.clientY] };
    draw();
  };

  svg.onpointermove = (event) => {
    if (!drag) return cursor(event);
    if (!drag.moved && Math.hypot(event.clientX - drag.at[0], event.clientY - drag.at[1]) < 4) return;
    drag.moved = true;
    const [x, y] = inFrame(event), [dx, dy] = [x - drag.start[0], y - drag.start[1]];
    if ("point" in drag) points[drag.point] = [x, y, points[drag.point][2]];
    else if (drag.move) box = shifted(drag.box, dx, dy);
    else if (drag.edges) drag.edges.forEach((side) => { box[side] = drag.box[side] + (side % 2 ? dy : dx); });
    else box = [drag.start[0], drag.start[1], x, y];
    draw();
    if (area(box)) send(false);
  };

  svg.onpointerup = svg.onpointercancel = (event) => {
    if (!drag) return;
    const { moved, start, box: before } = drag;
    drag = null;
    if (!moved && tool === "box" && event.type === "pointerup" && !model.get("points_off")) add(start, 1);
    box = box.length && area(box) ? ordered(box) : before;
    send();
    draw();
  };

  const ordered = ([a, b, c, d]) => [Math.min(a, c), Math.min(b, d), Math.max(a, c), Math.max(b, d)];
  const area = ([a, b, c, d]) => Math.abs(c - a) >= 0.5 && Math.abs(d - b) >= 0.5;
  const shifted = (old, dx, dy) => {  // kept inside the picture
    const [x0, y0, x1, y1] = model.get("region");
    const step = (delta, low, high, first, last) => Math.max(Math.min(delta, last - high), first - low);
    const [mx, my] = [step(dx, old[0], old[2], x0, x1), step(dy, old[1], old[3], y0, y1)];
    return [old[0] + mx, old[1] + my, old[2] + mx, old[3] + my];
  };

  function remove() {  // without a box, the kernel answers with the annotated one
    if (selected === "box") box = [];
    else points = points.filter((_, index) => index !== selected);
    selected = "box";
    send();
    draw();
  }

  root.onkeydown = (event) => {
    const step = event.shiftKey ? 10 : 1;
    const arrow = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    if (event.key === "Delete" || event.key === "Backspace") remove();
    else if (event.key === "Escape") { selected = "box"; draw(); }
    else if (arrow && selected === "box") { box = shifted(box, ...arrow); send(); draw(); }
    else if (arrow) {
      const [x, y, label] = points[selected];
      points[selected] = [x + arrow[0], y + arrow[1], label];
      send();
      draw();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };

  function draw() {
    const [x0, y0, x1, y1] = model.get("region"), u = unit(), parts = [];
    svg.setAttribute("viewBox", `${x0} ${y0} ${x1 - x0} ${y1 - y0}`);
    if (box.length) {
      const [a, b, c, d] = ordered(box), rectangle = `x="${a}" y="${b}" width="${c - a}" height="${d - b}" fill="none"`;
      parts.push(`<rect ${rectangle} stroke="#000" stroke-width="${4 * u}"/>`,
        `<rect class="box" ${rectangle} stroke="#fff" stroke-width="${1.6 * u}"/>`);
      const size = (selected === "box" ? 8 : 5) * u;
      for (const [x, y] of [[a, b], [c, b], [a, d], [c, d], [(a + c) / 2, b], [(a + c) / 2, d], [a, (b + d) / 2], [c, (b + d) / 2]])
        parts.push(`<rect x="${x - size / 2}" y="${y - size / 2}" width="${size}" height="${size}" fill="#fff" stroke="#000" stroke-width="${u}"/>`);
    }
    points.forEach(([x, y, label], index) => {
      const sign = `M${x - 4 * u} ${y}h${8 * u}` + (label ? `M${x} ${y - 4 * u}v${8 * u}` : "");
      parts.push(`<circle class="point" cx="${x}" cy="${y}" r="${8 * u}" fill="${COLOURS[label]}"
        stroke="${index === selected ? "#ffd400" : "#fff"}" stroke-width="${2.5 * u}"/><path d="${sign}" stroke="#fff" stroke-width="${2 * u}"/>`);
    });
    svg.innerHTML = parts.join("");
    const off = model.get("points_off");
    if (off) tool = "box";
    for (const button of buttons) {
      button.setAttribute("aria-pressed", button.name === tool);
      button.disabled = button.name !== "box" && Boolean(off);
      button.title = button.disabled ? off : "";
    }
    const uses = tool === "box" ? `Drag: draw, move or resize the box.${off ? "" : " Click: positive point, with Shift or Alt negative."}`
      : `Click: ${tool} point. Drag a point to move it.`;
    hint.textContent = `${uses} Arrows move, Delete removes. ${off}`;
  }

  function read() {  // the prompt as the kernel has it
    if (drag) return;
    const prompt = model.get("prompt");
    [box, points, sent] = [[...prompt.box], prompt.points.map((point) => [...point]), JSON.stringify(prompt)];
    if (selected !== "box" && selected >= points.length) selected = "box";
    draw();
  }

  function show() {
    const old = address;
    image.src = address = URL.createObjectURL(new Blob([model.get("image")], { type: "image/png" }));
    if (old) URL.revokeObjectURL(old);
  }

  const answered = () => { waiting = false; read(); };
  const resized = new ResizeObserver(draw);
  const listeners = { "change:image": show, "change:region": draw, "change:prompt": read, "change:points_off": draw,
    "change:answered": answered };
  for (const [name, action] of Object.entries(listeners)) model.on(name, action);
  resized.observe(svg);
  show();
  read();
  return () => {
    resized.disconnect();
    for (const [name, action] of Object.entries(listeners)) model.off(name, action);
    URL.revokeObjectURL(address);
  };
}

export default { render };
