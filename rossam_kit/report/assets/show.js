"use strict";
// Outputs of rossam_kit.report.show: tables that sort, and the object viewer. Loading it twice has no effect.
(() => {
  if (customElements.get("rossam-viewer")) return;

  // Tables: a click on a heading sorts by it, another one the other way round; missing values stay below.
  const sortValue = (row, column) => {
    let position = 0;
    for (const cell of row.cells) {
      if (column < position + cell.colSpan) return cell.dataset.sort;
      position += cell.colSpan;
    }
    return undefined;
  };
  const compare = (a, b) => (isNaN(a) || isNaN(b) ? String(a).localeCompare(String(b)) : a - b);
  const sortBy = (heading) => {
    const table = heading.closest("table");
    const first = heading.classList.contains("number") ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = heading.getAttribute("aria-sort") === first ? other : first;
    for (const each of heading.parentElement.cells) each.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows].map((row) => [row, sortValue(row, heading.cellIndex)]);
    rows.sort(([, a], [, b]) => (a === undefined) - (b === undefined) || (a === undefined ? 0 : sign * compare(a, b)));
    table.tBodies[0].append(...rows.map(([row]) => row));
  };
  const headingOf = (event) => event.target.closest?.(".rossam-table thead tr:last-child th");
  document.addEventListener("click", (event) => headingOf(event) && sortBy(headingOf(event)));
  document.addEventListener("keydown", (event) => event.key === "Enter" && headingOf(event) && sortBy(headingOf(event)));

  const svgElement = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const create = (name, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  };
  const TARGET = "ground truth";
  const ORDERS = {
    "worst first": (score) => (a, b) => score(a) - score(b),
    "best first": (score) => (a, b) => score(b) - score(a),
    "largest first": () => (a, b) => b.area - a.area,
    "as given": () => () => 0,
  };

  class Viewer extends HTMLElement {
    connectedCallback() {
      if (this.objects) return;
      const source = this.querySelector("script");
      if (source) this.start(JSON.parse(source.textContent));
      else setTimeout(() => this.connectedCallback(), 50); // the parser has not reached the data yet
    }

    start({ objects, colours, labels }) {
      Object.assign(this, { objects, colours, labels, order: objects });
      this.methods = [...new Set(objects.flatMap((object) => Object.keys(object.masks)))];
      const first = this.methods.includes("ros-sam") ? "ros-sam" : this.methods.at(-1);
      this.shown = new Set([TARGET, first]);
      const categories = [...new Set(objects.map((object) => object.category))].sort();
      this.slider = create("input", { type: "range", min: 0, value: 0, ariaLabel: "Object" });
      this.position = create("output");
      this.sorting = this.select("Order", Object.keys(ORDERS));
      this.judge = this.select("judged by", this.methods, first);
      this.category = this.select("Class", ["all", ...categories]);
      this.box = this.checkbox("prompt box", true);
      this.fill = this.checkbox("tinted inside", false);
      this.smooth = this.checkbox("smooth pixels", false);
      this.svg = svgElement("svg", { role: "img" });
      this.what = create("p", { className: "what" });
      this.scores = create("tbody");
      const button = (text, by, name) => create("button", { type: "button", textContent: text, ariaLabel: name, onclick: () => this.step(by) });
      const head = create("thead", {}, create("tr", {}, ...["Outline", "IoU", "BIoU"].map((text) => create("th", { textContent: text }))));
      this.append(
        create("div", { className: "browse" }, button("←", -1, "Previous object"), this.slider, button("→", 1, "Next object"), this.position),
        create("div", { className: "choose" }, this.sorting.label, this.judge.label, this.category.label),
        create("div", { className: "stage" }, this.svg, create("div", {}, this.what, create("table", {}, head, this.scores), this.box.label, this.fill.label, this.smooth.label)),
      );
      this.slider.addEventListener("input", () => this.draw());
      this.addEventListener("keydown", (event) => {
        const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (!by || ["INPUT", "SELECT"].includes(event.target.tagName)) return;
        event.preventDefault();
        event.stopPropagation(); // JupyterLab would move to another cell
        this.step(by);
      });
      this.choose();
    }

    select(text, values, chosen) {
      const options = values.map((value) => create("option", { value, textContent: this.labels[value] ?? value, selected: value === chosen }));
      const element = create("select", { onchange: () => this.choose(), name: text }, ...options);
      element.label = create("label", {}, `${text} `, element);
      return element;
    }

    checkbox(text, checked) {
      const element = create("input", { type: "checkbox", checked, onchange: () => this.draw() });
      element.label = create("label", { className: "option" }, element, ` ${text}`);
      return element;
    }

    choose() {
      const score = (object) => object.iou[this.judge.value] ?? -1;
      const wanted = this.category.value;
      this.order = this.objects.filter((object) => wanted === "all" || object.category === wanted).sort(ORDERS[this.sorting.value](score));
      this.slider.max = this.order.length - 1;
      this.slider.value = 0;
      this.draw();
    }

    step(by) {
      this.slider.value = +this.slider.value + by;
      this.draw();
    }

    colour(method) {
      return method === TARGET ? "#ffffff" : this.colours[method] ?? "#3c4a57";
    }

    draw() {
      const object = this.order[this.slider.value];
      const [width, height] = object.size;
      const outlines = [...this.methods.map((method) => [method, object.masks[method]]), [TARGET, object.target]]; // truth on top
      this.position.textContent = `${+this.slider.value + 1} of ${this.order.length}`;
      this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      this.svg.setAttribute("aria-label", `${object.category} ${object.key}, with the chosen outlines`);
      this.svg.classList.toggle("smooth", this.smooth.checked);
      this.svg.replaceChildren(svgElement("image", { href: object.image, width, height }));
      if (this.box.checked) {
        const [x0, y0, x1, y1] = object.box;
        this.svg.append(svgElement("rect", { class: "prompt", x: x0, y: y0, width: x1 - x0, height: y1 - y0 }));
      }
      for (const [method, path] of outlines) {
        if (!path || !this.shown.has(method)) continue;
        const tint = this.fill.checked && method !== TARGET ? `fill: ${this.colour(method)}; fill-opacity: 0.25` : "";
        this.svg.append(svgElement("path", { class: "halo", d: path, style: tint }));
        this.svg.append(svgElement("path", { class: "line", d: path, stroke: this.colour(method) }));
      }
      const area = object.area ? `, ${object.area.toLocaleString("en")} px²` : "";
      this.what.replaceChildren(create("strong", { textContent: object.category }), area, create("br"), create("small", { textContent: object.key }));
      this.scores.replaceChildren(...outlines.filter(([, path]) => path != null).map(([method, path]) => this.scoreRow(object, method, path)));
    }

    scoreRow(object, method, path) {
      const box = create("input", { type: "checkbox", checked: this.shown.has(method), value: method });
      box.addEventListener("change", () => {
        this.shown[box.checked ? "add" : "delete"](method);
        this.draw();
        this.querySelector(`tbody input[value="${CSS.escape(method)}"]`)?.focus();
      });
      const swatch = create("span", { className: "swatch" });
      swatch.style.background = this.colour(method);
      const name = method === TARGET ? "Ground truth" : this.labels[method] ?? method;
      const score = (scores) => (method in scores ? (100 * scores[method]).toFixed(1) : method === TARGET ? "" : "no truth");
      return create("tr", {},
        create("td", {}, create("label", {}, box, swatch, path === "" ? `${name} (empty)` : name)),
        create("td", { textContent: score(object.iou), className: "number" }),
        create("td", { textContent: score(object.biou), className: "number" }));
    }
  }
  customElements.define("rossam-viewer", Viewer);

  // Tables can be sorted with the keyboard, too.
  const focusable = () => document.querySelectorAll(".rossam-table thead tr:last-child th:not([tabindex])").forEach((heading) => (heading.tabIndex = 0));
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", focusable);
  else focusable();
})();
