// What is shown, the list of images, the tables, the link. Pictures: report_pictures.js, clips:
// report_player.js, the plot: report_plot.js; all become one script of the page.

const { metrics, sets, unit } = JSON.parse(document.getElementById("data").textContent);
const IMAGES_A_PAGE = 50;
const WORST = 10;

// A data set, one of its images, the methods A and B (indices), how they are compared; the order of
// the list: by "name", "difference" (B - A) or the number of a method, and by which metric.
const view = {
  set: sets[0], image: 0, a: 0, b: 0,
  mode: "slider", errors: false, boxes: true, second: false, split: 50,
  scale: null, centre: [0, 0], // null: the whole picture; centre in pixels of the image
  by: "name", metric: 0, descending: false, worst: false, page: 0, plotted: 0,
};

const method = (side) => view.set.methods[view[side]];
const scored = () => view.set.methods.map((_, index) => index).filter((index) => view.set.methods[index].scores);

function shown(score, metric, sign = false) {
  const value = numeric(score);
  const text = Number.isFinite(value) ? value.toFixed(metrics[metric][1]) : String(value).replace("Infinity", "inf");
  return sign && value > 0 ? `+${text}` : text.replace("-", "\u2212");
}

const scoreOf = (index, image, metric) => {
  const scores = view.set.methods[index].scores?.[image];
  return scores ? numeric(scores[metric]) : null;
};

// B - A; null where either has no score, 0 where both are infinite.
function difference(image, metric) {
  const [a, b] = [scoreOf(view.a, image, metric), scoreOf(view.b, image, metric)];
  if (a === null || b === null) return null;
  return a === b ? 0 : b - a;
}

const gain = (value, metric) => (!value ? "" : value > 0 === metrics[metric][2] ? "plus" : "minus");
const compared = () => view.a !== view.b && method("a").scores && method("b").scores;

// --- the order of the images ---------------------------------------------------------------------

function sortValue(image) {
  if (view.by === "name") return view.set.images[image];
  return view.by === "difference" ? difference(image, view.metric) : scoreOf(view.by, image, view.metric);
}

// Indices of the images that the search finds, in the chosen order.
function listed() {
  const wanted = byId("find").value.trim().toLowerCase();
  let order = view.set.images.map((_, index) => index);
  if (wanted) order = order.filter((i) => view.set.images[i].toLowerCase().includes(wanted));
  const natural = view.by === "name" && !view.descending; // the order of the page itself
  if (!natural) order.sort((a, b) => compare(sortValue(a), sortValue(b), view.descending));
  return view.worst ? order.filter((i) => sortValue(i) !== null).slice(0, WORST) : order;
}

function sortBy(by, metric, descending, worst = false) {
  Object.assign(view, { by, metric, descending, worst, page: 0 });
  showList();
}

// Worst first: low scores, or images on which B gains least or loses most against A.
const worstFirst = (metric) => !metrics[metric][2];

function showOrder() {
  const choices = [["File name", "name", 0]];
  if (compared()) metrics.forEach(([name], m) => choices.push([`B \u2212 A, ${name}`, "difference", m]));
  for (const index of scored()) metrics.forEach(([name], m) => choices.push([`${view.set.methods[index].name}, ${name}`, index, m]));
  byId("order").replaceChildren(...choices.map(([text, by, metric]) => element("option", {
    value: `${by},${metric}`, textContent: text, selected: by === view.by && metric === view.metric,
  })));
  const worst = view.descending === worstFirst(view.metric);
  byId("direction").textContent = view.by === "name" ? (view.descending ? "Z to A" : "A to Z") : worst ? "worst first" : "best first";
  byId("worst").textContent = worst || view.by === "name" ? "Worst ten" : "Best ten";
  byId("worst").setAttribute("aria-pressed", view.worst);
  byId("worst").hidden = scored().length === 0;
}

function toggleWorst() {
  if (view.worst) return sortBy("name", 0, false);
  const ordered = view.by !== "name";
  const by = ordered ? view.by : compared() ? "difference" : scored().includes(view.b) ? view.b : scored()[0];
  sortBy(by, view.metric, ordered ? view.descending : worstFirst(view.metric), true);
  return choose(listed()[0] ?? view.image);
}

// --- the images: thumbnails and table ------------------------------------------------------------

// The score that the list is ordered by, or B's where it is ordered by name.
function stripCaption(image) {
  if (view.by === "difference") {
    const value = difference(image, view.metric);
    return value === null ? ["-", ""] : [shown(value, view.metric, true), gain(value, view.metric)];
  }
  const value = scoreOf(view.by === "name" ? view.b : view.by, image, view.metric);
  return value === null ? ["", ""] : [shown(value, view.metric), ""];
}

function thumbnail(image) {
  // the clean image is the easiest to recognise
  const file = view.set.methods.map(({ files }) => files[image]).filter(Boolean).at(-1);
  const link = isClip(file) ? file.frames?.find(Boolean) : file;
  const picture = element("span", { className: "thumb" });
  if (link) picture.append(element("img", { loading: "lazy", decoding: "async", alt: "", src: link }));
  else if (file?.video) picture.append(element("video", { muted: true, preload: "metadata", src: file.video }));
  const [score, className] = stripCaption(image);
  const name = view.set.images[image];
  const button = element("button", { type: "button", title: name }, picture,
    element("span", { className: "caption" }, element("span", { textContent: name }), element("span", { textContent: score, className })));
  button.dataset.image = image;
  button.addEventListener("click", () => choose(image));
  return button;
}

function tableRow(image) {
  const name = element("th", { scope: "row" }, element("button", { type: "button", textContent: view.set.images[image] }));
  const cells = [];
  if (compared()) {
    metrics.forEach((_, m) => {
      const value = difference(image, m);
      cells.push(element("td", { textContent: value === null ? "-" : shown(value, m, true), className: gain(value, m) }));
    });
  }
  for (const index of scored()) {
    const problem = view.set.methods[index].problems[image];
    metrics.forEach((_, m) => {
      const value = scoreOf(index, image, m);
      cells.push(value === null
        ? element("td", { textContent: problem ? problem.split(":")[0] : "-", className: "absent-score", title: problem ?? "" })
        : element("td", { textContent: shown(value, m) }));
    });
  }
  const row = element("tr", {}, name, ...cells);
  row.dataset.image = image;
  row.addEventListener("click", () => {
    choose(image);
    byId("pictures").scrollIntoView({ block: "start" });
  });
  return row;
}

function sortButton(text, by, metric) {
  const head = element("th", { scope: "col" });
  const active = view.by === by && view.metric === metric;
  if (active) head.setAttribute("aria-sort", view.descending ? "descending" : "ascending");
  const button = element("button", { type: "button", textContent: text });
  button.addEventListener("click", () => {
    sortBy(by, metric, active ? !view.descending : by !== "name" && metrics[metric][2]);
    byId("images").tHead.querySelector(`[data-column="${by},${metric}"] button`).focus();
  });
  head.dataset.column = `${by},${metric}`;
  head.append(button);
  return head;
}

function showHead() {
  const group = (text) => element("th", { colSpan: metrics.length, scope: "colgroup", textContent: text });
  const columns = (by) => metrics.map(([name], m) => sortButton(name, by, m));
  const differences = compared() ? ["difference"] : [];
  byId("images").tHead.replaceChildren(
    element("tr", {}, element("td"), ...differences.map(() => group("B \u2212 A")),
      ...scored().map((index) => group(view.set.methods[index].name))),
    element("tr", {}, sortButton(unit[0].toUpperCase() + unit.slice(1), "name", 0), ...differences.flatMap(columns), ...scored().flatMap(columns)),
  );
}

function showList() {
  const order = listed();
  const pages = Math.max(1, Math.ceil(order.length / IMAGES_A_PAGE));
  view.page = Math.min(view.page, pages - 1);
  const here = order.slice(view.page * IMAGES_A_PAGE, (view.page + 1) * IMAGES_A_PAGE);
  byId("strip").replaceChildren(...here.map(thumbnail));
  byId("images").tBodies[0].replaceChildren(...here.map(tableRow));
  byId("page").textContent = `page ${view.page + 1} of ${pages}, ${order.length} ${unit}${order.length === 1 ? "" : "s"}`;
  byId("page-back").disabled = view.page === 0;
  byId("page-on").disabled = view.page === pages - 1;
  showHead();
  showOrder();
  markCurrent();
}

function markCurrent() {
  for (const marked of document.querySelectorAll("#strip button, #images tbody tr")) {
    marked.setAttribute("aria-current", Number(marked.dataset.image) === view.image);
  }
  const strip = byId("strip");
  const current = strip.querySelector("[aria-current=true]");
  if (!current) return;
  const [left, right] = [current.offsetLeft - strip.offsetLeft, current.offsetLeft - strip.offsetLeft + current.offsetWidth];
  if (left < strip.scrollLeft || right > strip.scrollLeft + strip.clientWidth) {
    strip.scrollLeft = left - (strip.clientWidth - current.offsetWidth) / 2;
  }
}

function turnPage(by) {
  view.page += by;
  showList();
  byId("strip").scrollLeft = 0;
}

function choose(image) {
  pause();
  player.frame = 0;
  Object.assign(view, { image, second: false });
  markCurrent();
  showPictures();
  markPlot();
  writeLink();
}

function step(by) {
  const order = listed();
  const at = order.indexOf(view.image);
  const next = at < 0 ? 0 : at + by;
  if (next < 0 || next >= order.length) return;
  const page = Math.floor(next / IMAGES_A_PAGE);
  if (page !== view.page) {
    view.page = page;
    showList();
  }
  choose(order[next]);
}

// --- the link ------------------------------------------------------------------------------------

function writeLink() {
  const words = new URLSearchParams({
    set: view.set.name, image: view.set.images[view.image], a: method("a").name, b: method("b").name,
    mode: view.mode,
  });
  if (view.errors) words.set("errors", "1");
  if (player.frame) words.set("frame", player.frame + 1);
  if (view.scale !== null) {
    words.set("zoom", view.scale.toFixed(3));
    words.set("at", view.centre.map(Math.round).join(","));
  }
  byId("link").href = `#${words}`;
  history.replaceState(null, "", `#${words}`);
}

// Apply what the address asks for; report what this page does not have.
function readLink() {
  const words = new URLSearchParams(location.hash.slice(1));
  const unknown = [];
  const find = (key, names, before) => {
    if (!words.has(key)) return before;
    const found = names.indexOf(words.get(key));
    if (found < 0) unknown.push(`${key} ${words.get(key)}`);
    return found < 0 ? before : found;
  };
  const set = sets[find("set", sets.map(({ name }) => name), sets.indexOf(view.set))];
  if (set !== view.set) useSet(set);
  const names = set.methods.map(({ name }) => name);
  view.image = find("image", set.images, view.image);
  view.a = find("a", names, view.a);
  view.b = find("b", names, view.b);
  view.mode = ["slider", "all", "blink"].find((mode) => mode === words.get("mode")) ?? view.mode;
  view.errors = words.get("errors") === "1" && hasClean();
  player.frame = Math.max(0, (Number(words.get("frame")) || 1) - 1);
  const [zoom, at] = [Number(words.get("zoom")), (words.get("at") ?? "").split(",").map(Number)];
  if (zoom > 0 && at.length === 2 && at.every(Number.isFinite)) Object.assign(view, { scale: Math.min(zoom, 16), centre: at });
  return unknown.length ? `The link asks for ${unknown.join(", ")}, which this page does not have.` : "";
}

// --- putting it together -------------------------------------------------------------------------

const hasClean = () => view.set.methods.some(({ kind }) => kind === "clean");

// The method with the best mean of the first metric, shown against the rainy input at first.
function bestMethod(set) {
  const mean = ({ scores }) => {
    const values = scores.filter(Boolean).map((all) => numeric(all[0])).filter(Number.isFinite);
    return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
  };
  const methods = set.methods.map((_, index) => index).filter((index) => set.methods[index].kind === "measured");
  methods.sort((x, y) => compare(mean(set.methods[x]), mean(set.methods[y]), metrics[0][2]));
  return methods[0] ?? 0;
}

function useSet(set) {
  const before = view.set.methods.length ? [method("a").name, method("b").name] : [];
  const [a, b] = before.map((name) => set.methods.findIndex((one) => one.name === name));
  const kept = set !== view.set && a >= 0 && b >= 0 && a !== b;
  const best = bestMethod(set);
  pause();
  player.frame = 0;
  Object.assign(view, {
    set, image: 0, page: 0, scale: null, second: false, by: "name", descending: false, worst: false,
    a: kept ? a : best === 0 ? Math.min(1, set.methods.length - 1) : 0, b: kept ? b : best,
  });
}

function showSet(said = "") {
  const names = view.set.methods.map(({ name }) => name);
  for (const side of ["a", "b"]) {
    byId(side).replaceChildren(...names.map((name, index) => element("option", { value: index, textContent: name, selected: index === view[side] })));
  }
  [...byId("sets").children].forEach((button, index) => button.setAttribute("aria-pressed", sets[index] === view.set));
  byId("errors").hidden = !hasClean();
  view.errors &&= hasClean();
  view.page = Math.max(0, Math.floor(listed().indexOf(view.image) / IMAGES_A_PAGE));
  showList();
  showPictures(said);
  showPlot();
  writeLink();
}

function changeSides(a, b) {
  Object.assign(view, { a, b, second: false });
  byId("a").value = a;
  byId("b").value = b;
  if (!compared() && view.by === "difference") Object.assign(view, { by: "name", metric: 0, descending: false, worst: false });
  showSet();
}

function start() {
  if (!sets.some(({ images }) => images.length)) {
    byId("pictures").replaceChildren();
    return;
  }
  byId("sets").replaceChildren(...sets.map((set) => {
    const button = element("button", { type: "button", textContent: set.name, disabled: !set.images.length });
    button.addEventListener("click", () => { useSet(set); showSet(); });
    return button;
  }));
  byId("plotted").replaceChildren(...metrics.map(([name], m) => {
    const button = element("button", { type: "button", textContent: name });
    button.addEventListener("click", () => { view.plotted = m; showPlot(); });
    return button;
  }));
  for (const side of ["a", "b"]) {
    byId(side).addEventListener("change", (event) => changeSides(...["a", "b"].map((s) => (s === side ? Number(event.target.value) : view[s]))));
  }
  byId("exchange").addEventListener("click", () => changeSides(view.b, view.a));
  byId("order").addEventListener("change", (event) => {
    const [by, metric] = event.target.value.split(",");
    const named = by === "name";
    sortBy(by === "difference" || named ? by : Number(by), Number(metric), !named && worstFirst(Number(metric)), view.worst && !named);
  });
  byId("direction").addEventListener("click", () => sortBy(view.by, view.metric, !view.descending, view.worst));
  byId("worst").addEventListener("click", toggleWorst);
  byId("find").addEventListener("input", () => { view.page = 0; showList(); });
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("page-back").addEventListener("click", () => turnPage(-1));
  byId("page-on").addEventListener("click", () => turnPage(1));
  startPictures();
  useSet(sets.find(({ images }) => images.length));
  const said = readLink();
  showSet(said);
  window.addEventListener("hashchange", () => showSet(readLink()));
  new ResizeObserver(() => { place(); showPlot(); }).observe(document.body);
}
