"use strict";

// Contents: open beside the text where there is room, folded on a phone; the section in view is marked.
const contents = document.querySelector(".contents details");
const wide = matchMedia("(min-width: 1080px)");
const fold = () => { contents.open = wide.matches; };
fold();
wide.addEventListener("change", fold);
const links = new Map([...contents.querySelectorAll("a")].map((a) => [a.hash.slice(1), a]));
for (const link of links.values()) link.addEventListener("click", () => { contents.open = wide.matches; });
const mark = () => {
  let current = null;
  for (const section of document.querySelectorAll(".section")) {
    if (section.getBoundingClientRect().top < innerHeight * 0.3) current = section.id;
  }
  for (const [id, link] of links) link.toggleAttribute("aria-current", id === current);
};
addEventListener("scroll", () => requestAnimationFrame(mark), { passive: true });
mark();

// Figures: click to enlarge.
const lightbox = document.querySelector(".lightbox");
for (const link of document.querySelectorAll(".enlarge")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const image = link.querySelector("img");
    const large = lightbox.querySelector("img");
    large.src = image.src;
    large.alt = image.alt;
    large.width = Math.min(image.naturalWidth, Math.max(innerWidth * 0.94, image.width * 1.6));
    lightbox.querySelector("p").textContent = link.parentElement.querySelector(".caption").textContent;
    lightbox.showModal();
  });
}
lightbox.addEventListener("click", () => lightbox.close());

// Tables: a click on a heading sorts by it, another click the other way round; missing values stay below.
const sortValue = (row, column) => {
  let at = 0;
  for (const cell of row.cells) {
    if (column < at + cell.colSpan) return cell.dataset.sort;
    at += cell.colSpan;
  }
  return undefined;
};
const compare = (a, b) => (isNaN(a) || isNaN(b) ? String(a).localeCompare(String(b)) : a - b);
for (const table of document.querySelectorAll("table.rossam")) {
  const headings = [...table.tHead.rows].at(-1).cells;
  [...headings].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const first = heading.classList.contains("number") ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = heading.getAttribute("aria-sort") === first ? other : first;
      for (const each of headings) each.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...table.tBodies[0].rows].map((row) => [row, sortValue(row, column)]);
      rows.sort(([, a], [, b]) => (a === undefined) - (b === undefined) || (a === undefined ? 0 : sign * compare(a, b)));
      table.tBodies[0].append(...rows.map(([row]) => row));
    });
  });
}

// Object viewer.
const svgElement = (name, attributes) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};
const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

function startViewer(root) {
  const { objects, methods, colours, labels } = JSON.parse(root.querySelector("script").textContent);
  const role = (name) => root.querySelector(`[data-role="${name}"]`);
  const slider = root.querySelector("input[type=range]");
  const svg = root.querySelector("svg");
  const TARGET = "ground truth";
  const colour = (method) => (method === TARGET ? "#ffffff" : colours[method] ?? "#3c4a57");
  const shown = new Set([TARGET, methods.at(-1)]);
  let order = objects;

  const choose = () => {
    const judge = role("judge").value;
    const category = role("category").value;
    const score = (o) => o.iou[judge] ?? -1;
    const by = {
      worst: (a, b) => score(a) - score(b),
      best: (a, b) => score(b) - score(a),
      area: (a, b) => b.area - a.area,
      given: () => 0,
    }[role("order").value];
    order = objects.filter((o) => !category || o.category === category).sort(by);
    slider.max = order.length - 1;
    slider.value = 0;
    draw();
  };

  const draw = () => {
    const object = order[slider.value];
    const [width, height] = object.size;
    const outlines = [...methods.map((m) => [m, object.masks[m]]), [TARGET, object.target]]; // ground truth on top
    root.querySelector(".position").textContent = `${+slider.value + 1} of ${order.length}`;
    slider.setAttribute("aria-valuetext", `${object.category}, ${object.key}`);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("aria-label", `${object.category} ${object.key}, with the outlines chosen`);
    svg.classList.toggle("smooth", role("smooth").checked);
    svg.replaceChildren(svgElement("image", { href: object.image, width, height }));
    if (role("box").checked) {
      const [x0, y0, x1, y1] = object.box;
      svg.append(svgElement("rect", { class: "prompt", x: x0, y: y0, width: x1 - x0, height: y1 - y0 }));
    }
    for (const [method, path] of outlines) {
      if (!path || !shown.has(method)) continue;
      const tint = role("fill").checked && method !== TARGET ? `fill: ${colour(method)}; fill-opacity: 0.25` : "";
      svg.append(svgElement("path", { class: "halo", d: path, style: tint }));
      svg.append(svgElement("path", { class: "line", d: path, stroke: colour(method) }));
    }
    const area = object.area ? `, ${object.area.toLocaleString("en")} px²` : "";
    root.querySelector(".what").replaceChildren(
      element("strong", { textContent: object.category }), area, element("br"), element("small", { textContent: object.key }),
    );
    root.querySelector(".scores tbody").replaceChildren(
      ...outlines.filter(([, path]) => path !== null && path !== undefined).map(([method, path]) => scoreRow(object, method, path)),
    );
  };

  const scoreRow = (object, method, path) => {
    const box = element("input", { type: "checkbox", checked: shown.has(method) });
    box.addEventListener("change", () => {
      shown[box.checked ? "add" : "delete"](method);
      draw();
      root.querySelector(`.scores input[value="${CSS.escape(method)}"]`)?.focus();
    });
    box.value = method;
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = colour(method);
    const name = method === TARGET ? "Ground truth" : labels[method] ?? method;
    const text = path === "" ? `${name} (empty)` : name;
    const score = (scores) => (method in scores ? (100 * scores[method]).toFixed(1) : method === TARGET ? "" : "no truth");
    return element("tr", {},
      element("td", {}, element("label", {}, box, swatch, text)),
      element("td", { textContent: score(object.iou) }),
      element("td", { textContent: score(object.biou) }),
    );
  };

  const step = (by) => {
    slider.value = +slider.value + by;
    draw();
  };
  slider.addEventListener("input", draw);
  for (const button of root.querySelectorAll("[data-step]")) button.addEventListener("click", () => step(+button.dataset.step));
  for (const name of ["order", "judge", "category"]) role(name).addEventListener("change", choose);
  for (const name of ["box", "fill", "smooth"]) role(name).addEventListener("change", draw);
  root.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.target === slider || event.target.tagName === "SELECT") return;
    event.preventDefault();
    step(by);
  });
  choose();
}
document.querySelectorAll(".viewer").forEach(startViewer);
