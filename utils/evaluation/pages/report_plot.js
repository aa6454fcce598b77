// The distribution of scores on a data set: for each method a row of dots, one per image.

const ROW = 46;
const DOT = 4;
let plot = null; // used by clicks and by the mark on the shown image

function drawn(name, attributes, ...children) {
  const made = document.createElementNS(byId("filters").namespaceURI, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Interpolates linearly between neighbours, as NumPy does by default.
function quantile(sorted, share) {
  const at = share * (sorted.length - 1);
  const low = Math.floor(at);
  return sorted[low] + (at - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
}

// Round numbers, about ``count`` of them, within the range.
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high; at += 1) found.push(at * step);
  return { found, decimals: Math.max(0, -Math.floor(Math.log10(step))) };
}

// Dots that would cover each other are stacked above and below the middle of the row.
function dots(values, x, middle) {
  const filled = new Map();
  return values.map(([image, value]) => {
    const column = Math.round(x(value) / DOT);
    const number = filled.get(column) ?? 0;
    filled.set(column, number + 1);
    return { image, x: x(value), number, y: middle };
  });
}

function showPlot() {
  const place = byId("plot");
  const metric = view.plotted;
  [...byId("plotted").children].forEach((button, m) => button.setAttribute("aria-pressed", m === metric));
  const rows = scored().map((index) => {
    const all = view.set.images.map((_, image) => [image, scoreOf(index, image, metric)]).filter(([, value]) => value !== null);
    return { index, values: all.filter(([, value]) => Number.isFinite(value)), infinite: all.filter(([, value]) => !Number.isFinite(value)).length };
  });
  const every = rows.flatMap(({ values }) => values.map(([, value]) => value));
  plot = null;
  if (!every.length) {
    place.replaceChildren(element("p", { className: "notes", textContent: "There is no finite score to show." }));
    return;
  }
  const width = Math.max(280, place.clientWidth);
  const narrow = width < 700;
  const left = narrow ? 6 : Math.min(240, 0.24 * width);
  const high = ROW + (narrow ? 18 : 0);
  const [least, most] = [every.reduce((a, b) => Math.min(a, b)), every.reduce((a, b) => Math.max(a, b))];
  const margin = (most - least || 1) * 0.03;
  const [low, top] = [least - margin, most + margin];
  const x = (value) => left + ((value - low) / (top - low)) * (width - left - 8);
  const below = high * rows.length;
  const grid = ticks(low, top, narrow ? 4 : 9);
  const svg = drawn("svg", { width, height: below + 26, viewBox: `0 0 ${width} ${below + 26}`, role: "img",
    "aria-label": `Distribution of ${metrics[metric][0]} for each method` });
  for (const value of grid.found) {
    svg.append(drawn("line", { class: "grid", x1: x(value), x2: x(value), y1: 0, y2: below }),
      drawn("text", { class: "tick", x: x(value), y: below + 18, "text-anchor": "middle" }, value.toFixed(grid.decimals)));
  }
  const marks = [];
  rows.forEach(({ index, values, infinite }, number) => {
    const middle = number * high + (narrow ? 18 : 0) + ROW / 2;
    const row = drawn("g", { class: `row ${index === view.a ? "a" : index === view.b ? "b" : ""}` });
    const { name } = view.set.methods[index];
    const side = index === view.a ? "A  " : index === view.b ? "B  " : "";
    const more = infinite ? ` (${infinite} infinite)` : "";
    const label = drawn("text", { class: "method", x: narrow ? left : 0, y: narrow ? number * high + 14 : middle + 4 }, side + short(name, narrow ? 40 : 26) + more);
    label.append(drawn("title", {}, name));
    row.append(label);
    if (values.length) {
      const sorted = values.map(([, value]) => value).sort((a, b) => a - b);
      const [q1, q2, q3] = [0.25, 0.5, 0.75].map((share) => quantile(sorted, share));
      const mean = x(sorted.reduce((sum, value) => sum + value, 0) / sorted.length);
      const found = dots(values, x, middle);
      const tallest = found.reduce((most_, { number: n }) => Math.max(most_, n), 0);
      const gap = Math.min(DOT, (ROW - 12) / Math.max(1, tallest));
      for (const dot of found) dot.y += (dot.number % 2 ? 1 : -1) * Math.ceil(dot.number / 2) * gap;
      row.append(
        drawn("rect", { class: "box", x: x(q1), y: middle - 17, width: Math.max(1, x(q3) - x(q1)), height: 34, rx: 3 }),
        drawn("path", { class: "dots", "stroke-width": DOT, d: found.map((dot) => `M${dot.x.toFixed(1)} ${dot.y.toFixed(1)}h0`).join("") }),
        drawn("line", { class: "median", x1: x(q2), x2: x(q2), y1: middle - 17, y2: middle + 17 }),
        drawn("path", { class: "mean", d: `M${mean} ${middle + 16}l-5 8h10z` }),
      );
      const ring = drawn("circle", { class: "ring", r: 6 });
      row.append(ring);
      marks.push({ index, found, ring });
    }
    svg.append(row);
  });
  svg.addEventListener("click", (event) => {
    const box = svg.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    let nearest = { away: 24 };
    for (const { found } of marks) {
      for (const dot of found) {
        const away = Math.hypot(dot.x - px, dot.y - py);
        if (away < nearest.away) nearest = { away, image: dot.image };
      }
    }
    if (nearest.image === undefined) return;
    choose(nearest.image);
    byId("pictures").scrollIntoView({ block: "start" });
  });
  place.replaceChildren(svg);
  plot = marks;
  markPlot();
}

const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}\u2026` : text);

function markPlot() {
  for (const { found, ring } of plot ?? []) {
    const dot = found.find(({ image }) => image === view.image);
    ring.setAttribute("visibility", dot ? "visible" : "hidden");
    if (dot) {
      ring.setAttribute("cx", dot.x);
      ring.setAttribute("cy", dot.y);
    }
  }
}

start();
