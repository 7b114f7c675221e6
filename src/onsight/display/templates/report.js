"use strict";
// Opens the images of a cell of the confusion matrix, moves between cells and images by keyboard, sorts tables.
// Names come from strangers: they are set as textContent, never as markup.
(() => {
  const panel = document.getElementById("panel");
  const island = document.getElementById("pictures");
  const data = island ? JSON.parse(island.textContent) : null;
  const SVG = data && document.getElementById("sprite").namespaceURI;

  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  // A name that is cut with an ellipsis if it is too long for its line.
  const named = (name) => element("bdi", { className: "name", title: name }, ...pieces(name));

  // A name or path as pieces between which its lines break, namely at spaces and after slashes.
  const pieces = (text) =>
    (text.match(/ |[^/ ]*\/|[^/ ]+/g) ?? []).map((each) => (each === " " ? each : element("span", { className: "whole", textContent: each })));

  function tile(place) {
    const picture = document.createElementNS(SVG, "svg");
    const x = (place % data.columns) * data.side;
    const y = Math.floor(place / data.columns) * data.side;
    picture.setAttribute("viewBox", `${x} ${y} ${data.side} ${data.side}`);
    picture.setAttribute("class", "tile");
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", data.path[place]);
    const use = document.createElementNS(SVG, "use");
    use.setAttribute("href", "#sprite");
    picture.append(use);
    return picture;
  }

  function confidence(place) {
    const share = 100 * data.probability[place];
    let text = share.toFixed(1);
    for (let digits = 2; Number(text) === 100 && share < 100 && digits < 6; digits += 1) text = share.toFixed(digits);
    return `confidence ${text}\u00a0%`;
  }

  let opened = null; // the button of the cell whose images are shown
  const hint = panel ? [...panel.childNodes] : [];

  function close() {
    if (!opened) return;
    const button = opened;
    opened = null;
    button.setAttribute("aria-expanded", "false");
    panel.replaceChildren(...hint);
    panel.classList.remove("open");
    button.focus();
  }

  function open(button, moveTo) {
    if (opened) opened.setAttribute("aria-expanded", "false");
    opened = button;
    button.setAttribute("aria-expanded", "true");
    const { cell, truth, said, n } = button.dataset;
    const places = data.cells[cell];
    const [i, j] = cell.split(","); // indices, because names are cut and two cut names may be equal
    const right = i === j;
    const title = right
      ? element("h3", {}, named(truth), " recognised")
      : element("h3", {}, named(truth), " taken for ", named(said));
    const all = Number(n);
    const which = places.length < all ? `; the ${places.length} ${right ? "least" : "most"} confident are shown` : "";
    const told = `${all.toLocaleString("en")} ${all === 1 ? "image" : "images"}${which}`;
    const closer = element("figure", { className: "closer" });
    const tiles = places.map((place) => {
      const each = element("button", { type: "button", title: data.path[place] }, tile(place));
      const look = () => {
        tiles.forEach((other) => other.setAttribute("aria-pressed", String(other === each)));
        const path = element("bdi", { title: data.path[place] }, ...pieces(data.path[place]));
        closer.replaceChildren(tile(place), element("figcaption", {}, element("b", { textContent: confidence(place) }), path));
      };
      each.addEventListener("click", look);
      each.addEventListener("focus", look);
      each.look = look;
      return each;
    });
    const shut = element("button", { type: "button", className: "shut", textContent: "Close" });
    shut.addEventListener("click", close);
    const grid = element("div", { className: "tiles" }, ...tiles);
    panel.replaceChildren(element("div", { className: "bar" }, title, shut), element("p", { className: "note", textContent: told }), closer, grid);
    panel.classList.add("open");
    tiles[0].look();
    arrows(grid, () => tiles);
    const below = panel.getBoundingClientRect().top >= document.getElementById("cells").getBoundingClientRect().bottom;
    if (moveTo && below) panel.scrollIntoView({ block: "nearest" });
  }

  // Arrow keys move the focus to the nearest element in their direction.
  function arrows(box, list) {
    box.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      const from = event.target.closest("button");
      if (!way || !from) return;
      const centre = (item) => {
        const r = item.getBoundingClientRect();
        return [r.left + r.width / 2, r.top + r.height / 2];
      };
      const [x, y] = centre(from);
      let best = null;
      let least = Infinity;
      for (const item of list()) {
        const [dx, dy] = [centre(item)[0] - x, centre(item)[1] - y];
        const along = dx * way[0] + dy * way[1];
        const aside = Math.abs(dx * way[1]) + Math.abs(dy * way[0]);
        if (along > 2 && along + 4 * aside < least) [best, least] = [item, along + 4 * aside];
      }
      event.preventDefault();
      if (best) best.focus();
    });
  }

  if (data && panel) {
    const matrix = document.getElementById("cells");
    const buttons = [...matrix.querySelectorAll("[data-cell]")].map((cell) => {
      const button = element("button", { type: "button", textContent: cell.textContent.trim() });
      Object.assign(button.dataset, cell.dataset);
      button.setAttribute("aria-expanded", "false");
      button.setAttribute("aria-controls", "panel");
      button.setAttribute("aria-label", `${cell.dataset.truth}, predicted ${cell.dataset.said}: ${cell.dataset.n}`);
      button.tabIndex = -1;
      button.addEventListener("click", () => open(button, true));
      button.addEventListener("focus", () => {
        buttons.forEach((other) => { other.tabIndex = other === button ? 0 : -1; });
        if (opened) open(button, false); // once images are shown, they follow the focus
      });
      cell.replaceChildren(button);
      return button;
    });
    arrows(matrix, () => buttons);
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
    const first = buttons.find((button) => button.dataset.cell === matrix.dataset.first) || buttons[0];
    if (first) {
      first.tabIndex = 0;
      if (matchMedia("(min-width: 62rem)").matches) open(first, false);
    }
  }

  const points = document.getElementById("map-points");
  if (points) drawMap(JSON.parse(points.textContent));

  // Draws the map: a dot per image, coloured by true class; a mistake has a ring.
  function drawMap(map) {
    const canvas = document.getElementById("map-canvas");
    const shown = document.getElementById("map-shown");
    const legend = document.getElementById("map-legend");
    const context = canvas.getContext("2d");
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const onLight = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#8c564b", "#7f7f7f", "#9467bd", "#17a398"];
    const onDark = ["#4aa8e0", "#ff8a3d", "#2fc79a", "#e59cc4", "#e0b23c", "#8fd0f5", "#c98b7d", "#b0b0b0", "#bb9be0", "#4fd0c4"];
    const few = map.classes.length <= onLight.length;
    // Of many classes, neighbours in the legend differ in lightness too; to single out a class, the legend is pointed at.
    const hue = (label) => `hsl(${(label * 137.5) % 360} 70% ${(dark.matches ? [60, 78, 45] : [40, 58, 26])[label % 3]}%)`;
    const colour = (label) => (few ? (dark.matches ? onDark : onLight)[label] : hue(label));
    const total = map.path.length;
    const radius = total > 3000 ? 2 : total > 500 ? 3 : 5;
    let chosen = null; // which images stay lit, as a function of the index; null for all
    let pointed = null; // the same while the pointer is on a button of the legend
    const lit = (i) => (pointed ?? chosen ?? (() => true))(i);
    const isWrong = (i) => map.label[i] !== map.predicted[i];
    let current = -1; // the image that is shown
    let width = 0;
    let height = 0;
    const margin = 12;
    const at = (i) => [margin + map.x[i] * (width - 2 * margin), margin + (1 - map.y[i]) * (height - 2 * margin)];

    function draw() {
      const scale = window.devicePixelRatio || 1;
      width = canvas.clientWidth;
      height = canvas.clientHeight;
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
      context.setTransform(scale, 0, 0, scale, 0, 0);
      const ink = getComputedStyle(document.body).color;
      for (const wrong of [false, true]) { // mistakes come last, so that no dot hides them
        for (let i = 0; i < total; i += 1) {
          if (isWrong(i) !== wrong) continue;
          const [x, y] = at(i);
          context.globalAlpha = lit(i) ? 0.85 : 0.12;
          context.fillStyle = colour(map.label[i]);
          context.beginPath();
          context.arc(x, y, radius, 0, 2 * Math.PI);
          context.fill();
          if (!wrong) continue;
          context.strokeStyle = ink;
          context.lineWidth = 1.5;
          context.beginPath();
          context.arc(x, y, radius + 2, 0, 2 * Math.PI);
          context.stroke();
        }
      }
      context.globalAlpha = 1;
      if (current < 0) return;
      const [x, y] = at(current);
      context.strokeStyle = ink;
      context.lineWidth = 2.5;
      context.beginPath();
      context.arc(x, y, radius + 5, 0, 2 * Math.PI);
      context.stroke();
    }

    function show(i) {
      if (i === current) return;
      current = i;
      const said = !isWrong(i) ? ["recognised as ", named(map.classes[map.label[i]])] : [named(map.classes[map.label[i]]), " taken for ", named(map.classes[map.predicted[i]])];
      const place = map.place[i];
      const picture = data && place >= 0 ? [tile(place)] : [element("p", { className: "note", textContent: "The report stores no thumbnail of this image." })];
      shown.replaceChildren(...picture, element("figcaption", {}, element("b", {}, ...said), element("bdi", { title: map.path[i] }, ...pieces(map.path[i]))));
      draw();
    }

    function nearest(event) {
      const box = canvas.getBoundingClientRect();
      let best = -1;
      let least = 24 ** 2; // pixels within which an image is hit
      for (let i = 0; i < total; i += 1) {
        if (!lit(i)) continue;
        const [x, y] = at(i);
        const apart = (x - event.clientX + box.left) ** 2 + (y - event.clientY + box.top) ** 2;
        if (apart < least) [best, least] = [i, apart];
      }
      if (best >= 0) show(best);
    }

    canvas.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") nearest(event); });
    canvas.addEventListener("click", nearest);
    canvas.tabIndex = 0;
    canvas.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!way) return;
      event.preventDefault();
      const [x, y] = current < 0 ? [width / 2, height / 2] : at(current);
      let best = -1;
      let least = Infinity;
      for (let i = 0; i < total; i += 1) {
        const [dx, dy] = [at(i)[0] - x, at(i)[1] - y];
        const along = dx * way[0] + dy * way[1];
        const apart = along + 2 * Math.abs(dx * way[1] + dy * way[0]);
        if (lit(i) && i !== current && along > 0 && apart < least) [best, least] = [i, apart];
      }
      if (best >= 0) show(best);
    });
    const dots = [];
    const paint = () => { for (const [dot, label] of dots) dot.style.background = colour(label); };
    const present = [...new Set(map.label)].sort((a, b) => a - b);
    const buttons = [];
    function choice(test, title, ...content) {
      const button = element("button", { type: "button", title }, ...content);
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => {
        chosen = chosen === test ? null : test;
        pointed = null;
        buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button && chosen !== null)));
        draw();
      });
      const point = (value) => () => { pointed = value; draw(); };
      button.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") point(test)(); });
      button.addEventListener("pointerleave", point(null));
      buttons.push(button);
    }
    for (const label of present) {
      const dot = element("span", { className: "dot" });
      dots.push([dot, label]);
      choice((i) => map.label[i] === label, map.classes[label], dot, map.classes[label]);
    }
    const wrong = map.label.filter((_, i) => isWrong(i)).length;
    if (wrong) choice(isWrong, "", element("span", { className: "dot ring" }), `mistakes (${wrong.toLocaleString("en")})`);
    legend.replaceChildren(...buttons);
    paint();
    new ResizeObserver(draw).observe(canvas);
    dark.addEventListener("change", () => { paint(); draw(); });
    draw();
  }

  const collection = document.getElementById("collection");
  if (collection) collect(JSON.parse(collection.textContent));

  // Lets people choose the right label of each suspect and mistake, and downloads the choices as a labels.csv.
  function collect({ classes, none, columns, items }) {
    const MANY = 100; // of more classes, only the label and the answer can be chosen
    const chosen = new Map(); // place -> label
    const who = element("input", { id: "collect-who", autocomplete: "name", maxLength: 64 });
    const told = element("span", { role: "status" });
    const save = element("button", { type: "button", textContent: "Download labels.csv" });
    const box = element("section", { className: "collect-box", hidden: true }, told,
      element("label", { htmlFor: "collect-who", textContent: "Your name " }, who), save);
    box.setAttribute("aria-label", "Collected labels");
    document.querySelector(".sheet").append(box);
    const selects = [...document.querySelectorAll("[data-collect]")].map((holder) => {
      const place = Number(holder.dataset.collect), [path, label, said] = items[place];
      const select = element("select", { className: "collect" }, new Option("collect …", ""), new Option(`is ${label}, as labelled`, label), new Option(`is ${said}`, said));
      if (classes.length <= MANY) select.append(...classes.filter((name) => name !== label && name !== said).map((name) => new Option(`is ${name}`, name)));
      select.append(new Option("none of the classes", none));
      select.setAttribute("aria-label", `Label of ${path}`);
      select.addEventListener("change", () => {
        if (select.value === "") chosen.delete(place);
        else chosen.set(place, select.value);
        selects.forEach((other) => { if (other.place === place) other.select.value = select.value; });
        told.textContent = `${chosen.size.toLocaleString("en")} ${chosen.size === 1 ? "label" : "labels"} collected. `;
        box.hidden = chosen.size === 0;
      });
      (holder.querySelector("figcaption") ?? holder).append(select);
      return { place, select };
    });
    // No spreadsheet may run a cell (`csv_cell` in metrics/predictions_csv.py writes the same).
    const cell = (text) => `"${/^[=+\-@\t\r\n＝＋－＠']/.test(text) ? "'" : ""}${text.replaceAll('"', '""')}"`;
    save.addEventListener("click", () => {
      const when = new Date().toISOString();
      const rows = [...chosen].map(([place, label]) => [items[place][0], label, items[place][1], who.value.trim(), when]);
      const text = [columns, ...rows].map((row) => `${row.map(cell).join(",")}\n`).join("");
      const address = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
      element("a", { href: address, download: "labels.csv" }).click();
      setTimeout(() => URL.revokeObjectURL(address), 1000);
    });
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    table.querySelectorAll("thead th").forEach((head, column) => {
      const button = element("button", { type: "button" }, ...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const key = (row) => row.cells[column].dataset.key ?? row.cells[column].textContent.trim();
        const order = (a, b) => {
          const difference = Number(key(a)) - Number(key(b));
          return (Number.isNaN(difference) ? key(a).localeCompare(key(b), "en") : difference) * (up ? 1 : -1);
        };
        const body = table.tBodies[0];
        body.append(...[...body.rows].sort(order));
      });
    });
  }
})();
