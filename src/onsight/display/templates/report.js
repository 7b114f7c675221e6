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
