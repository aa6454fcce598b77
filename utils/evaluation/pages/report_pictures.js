// The pictures: two on top of each other (slider, blink) or all methods in a grid, with one zoom and
// one place for all. Errors are drawn by the browser: "difference" over the clean image, then colours.

const MOST_ENLARGED = 16;
const STEPS = [0.25, 0.5, 1, 2, 4, 8, MOST_ENLARGED];
const FIT_AT_MOST = 4; // small images are not enlarged further to fill the page
let panes = [];

function makePane() {
  const clean = element("img", { className: "clean", alt: "", hidden: true });
  const picture = element("img", { className: "shown", alt: "" });
  const boxes = element("div", { className: "boxes", hidden: true });
  const absent = element("p", { className: "absent", hidden: true });
  const layer = element("div", { className: "layer" }, element("div", { className: "picture" }, clean, picture, boxes));
  const caption = element("figcaption");
  const figure = element("figure", { className: "pane" }, caption, element("div", { className: "window" }, layer, absent));
  const pane = { figure, layer, clean, picture, boxes, absent, caption, films: new Map(), files: [] };
  for (const image of [clean, picture]) {
    image.addEventListener("load", place);
    image.addEventListener("error", () => {
      if (!image.getAttribute("src")) return;
      const file = image.src.startsWith("data:") ? "the image" : readable(image.getAttribute("src"));
      say(pane, `Cannot show ${file}: it was moved, or this browser does not know its format (evaluate.py --embed converts it).`);
    });
  }
  return pane;
}

// A link as people read it; one that is not UTF-8 as it is.
function readable(link) {
  try {
    return decodeURI(link);
  } catch {
    return link;
  }
}

function say(pane, text) {
  pane.absent.textContent = text;
  pane.absent.hidden = !text;
}

// Set or remove a file in one place of a pane; a file that is already shown is not loaded again.
function show(pane, image, file) {
  const link = pictureOf(file);
  image.hidden = !link;
  if (!link) image.removeAttribute("src");
  else if (image.getAttribute("src") !== link) image.src = link;
  showFilm(pane, image, file);
}

// A method's scores of the image; no line break falls inside a score.
function scoreTexts(index) {
  const scores = view.set.methods[index].scores;
  if (!scores) return [];
  if (!scores[view.image]) return [element("span", { textContent: "no score" })];
  return metrics.map(([name], m) => element("span", { textContent: `${name} ${shown(scores[view.image][m], m)}` }));
}

const hasBoxes = () => view.set.methods.some(({ boxes }) => boxes);

// What the detector sees in a method's image, and dashed what is held to be true.
function showBoxes(pane, one) {
  const truth = view.set.methods.find(({ kind }) => kind === "clean");
  const draw = (boxes, className) => (boxes ?? []).map(([left, top, right, bottom, name, score]) => element("span", {
    className, title: className === "found" ? `${name}, ${score} %` : `${name} (true)`,
    style: `left:${left}px;top:${top}px;width:${right - left}px;height:${bottom - top}px`,
  }, element("i", { textContent: className === "found" ? `${name} ${score}` : name })));
  pane.boxes.hidden = !view.boxes;
  const found = one === truth ? [] : draw(one.boxes?.[view.image], "found");
  pane.boxes.replaceChildren(...draw(truth?.boxes?.[view.image], "true"), ...found);
}

function fillPane(pane, index) {
  const one = view.set.methods[index];
  const side = index === view.a ? "a" : index === view.b ? "b" : "";
  pane.index = index;
  pane.figure.className = `pane ${side}`;
  pane.figure.dataset.method = one.name;
  pane.picture.alt = `${one.name}: ${view.set.images[view.image]}`;
  pane.layer.classList.toggle("errors", view.errors);
  showBoxes(pane, one);
  showFiles(pane);
  const badge = side ? [element("i", { className: `badge ${side}`, textContent: side.toUpperCase() })] : [];
  pane.caption.replaceChildren(...badge, element("b", { textContent: one.name }), ...scoreTexts(index));
}

// The files of a pane, of a clip those of its frame; without any, a sentence.
function showFiles(pane) {
  const one = view.set.methods[pane.index];
  const file = one.files[view.image];
  const clean = view.set.methods.find(({ kind }) => kind === "clean")?.files[view.image];
  const name = `${unit} ${view.set.images[view.image]}`;
  pane.files = [file, view.errors && file ? clean : ""];
  show(pane, pane.picture, pane.files[0]);
  show(pane, pane.clean, pane.files[1]);
  if (!file) say(pane, `${one.name} has no ${name}.`);
  else if (view.errors && !clean) say(pane, `There is no clean ${name}.`);
  else if (pictureOf(file) === undefined || pictureOf(file) === null) say(pane, `${one.name} has no frame ${player.frame + 1}.`);
  else say(pane, filmTrouble(pane));
}

function showPictures(said = "") {
  const { mode } = view;
  const wasPlaying = player.playing;
  pause();
  const remarks = new Set([method("a"), method("b")].filter(({ remarks: all }) => all[view.image]));
  byId("trouble").textContent = [said, ...[...remarks].map((one) => `${one.name}: ${one.remarks[view.image]}.`)].join(" ").trim();
  const methods = mode === "all" ? view.set.methods.map((_, index) => index) : [view.b, view.a];
  if (panes.length !== methods.length) {
    panes = methods.map(makePane);
    byId("panes").replaceChildren(...panes.map(({ figure }) => figure));
  }
  panes.forEach((pane, at) => fillPane(pane, methods[at]));
  // A covers B even if both are the same method
  if (mode !== "all") panes.forEach(({ figure }, at) => { figure.className = `pane ${"ba"[at]}`; });
  byId("stage").className = `stage mode-${mode}`;
  byId("stage").classList.toggle("second", view.second);
  byId("legend").hidden = !view.errors;
  byId("errors").setAttribute("aria-pressed", view.errors);
  byId("boxes").hidden = !hasBoxes();
  byId("boxes").setAttribute("aria-pressed", view.boxes);
  for (const button of byId("modes").children) button.setAttribute("aria-pressed", button.dataset.mode === mode);
  byId("name").textContent = `${view.set.images[view.image]} (${view.image + 1} of ${view.set.images.length})`;
  byId("name").title = view.set.images[view.image];
  for (const side of ["a", "b"]) byId(`${side}-score`).replaceChildren(...scoreTexts(view[side]));
  const value = compared() ? difference(view.image, 0) : null;
  const decibel = metrics[0][0] === "PSNR" ? " dB" : "";
  byId("difference").textContent = value === null ? "" : `${shown(value, 0, true)}${decibel}`;
  byId("difference").className = gain(value, 0);
  byId("difference").title = `B \u2212 A, ${metrics[0][0]}`;
  place();
  preload();
  if (numFrames()) showFrame(player.frame);
  showPlayer();
  if (wasPlaying) play();
}

// Load the neighbours, so that the next image appears at once.
function preload() {
  const next = view.image + 1;
  for (const side of ["a", "b"]) {
    const file = method(side).files[next];
    if (file && !isClip(file) && !file.startsWith("data:")) new Image().src = file;
  }
}

// --- the place of the pictures -------------------------------------------------------------------

// Width and height of the first loaded picture, taken for all of them; null before.
function imageSize() {
  const loaded = panes.flatMap(({ picture, clean }) => [picture, clean]).find((image) => !image.hidden && image.naturalWidth);
  const film = films().find(({ video }) => video.videoWidth)?.video;
  if (!loaded) return film ? [film.videoWidth, film.videoHeight] : null;
  const half = /#(left|right)$/.test(loaded.getAttribute("src"));
  return [loaded.naturalWidth / (half ? 2 : 1), loaded.naturalHeight];
}

// The height of a window, and in the grid the columns that show the pictures largest.
function layOut() {
  const [width, height] = imageSize() ?? [3, 2];
  const stage = byId("stage");
  const room = Math.max(260, 0.78 * innerHeight);
  if (view.mode !== "all") return Math.round(Math.min(room, 0.75 * stage.clientWidth));
  let best = { scale: 0 };
  for (let columns = 1; columns <= panes.length; columns += 1) {
    const rows = Math.ceil(panes.length / columns);
    const across = (stage.clientWidth - 4 - 8 * (columns - 1)) / columns;
    const down = Math.max(70, (1.1 * room) / rows - 56);
    const scale = Math.min(across / width, down / height, FIT_AT_MOST);
    if (scale > best.scale) best = { scale, columns, height: Math.round(scale * height) };
  }
  stage.style.setProperty("--columns", best.columns);
  return best.height;
}

function geometry() {
  const [width, height] = imageSize() ?? [3, 2];
  const frame = panes[0].layer.parentElement;
  const fit = Math.min(frame.clientWidth / width, frame.clientHeight / height, FIT_AT_MOST);
  return { width, height, frame, fit, scale: view.scale ?? fit, across: frame.clientWidth, down: frame.clientHeight };
}

// The centre stops where the picture's edge meets the window's edge.
function limited(centre, scale, size, room) {
  if (size * scale <= room) return size / 2;
  const half = room / scale / 2;
  return Math.min(Math.max(centre, half), size - half);
}

function place() {
  if (!panes.length) return;
  const high = layOut();
  for (const { figure } of panes) figure.lastElementChild.style.height = `${high}px`;
  if (!imageSize()) return;
  const { width, height, scale, across, down } = geometry();
  const [x, y] = view.scale === null ? [width / 2, height / 2]
    : [limited(view.centre[0], scale, width, across), limited(view.centre[1], scale, height, down)];
  view.centre = [x, y];
  // whole pixels at the edges: half-covered ones would look like errors in the error maps
  const [wide, tall] = [Math.round(width * scale) / width, Math.round(height * scale) / height];
  const [left, top] = [Math.round(across / 2 - x * scale), Math.round(down / 2 - y * scale)];
  for (const { layer } of panes) {
    layer.firstElementChild.style.transform = `translate(${left}px, ${top}px) scale(${wide}, ${tall})`;
  }
  const stage = byId("stage");
  stage.classList.toggle("movable", movable());
  stage.classList.toggle("pixels", view.scale !== null && scale >= 2);
  stage.style.setProperty("--split", `${view.split}%`);
  stage.style.setProperty("--pixel", `${1 / scale}px`); // a pixel of the screen, for lines of boxes
  byId("split").value = view.split;
  byId("percent").textContent = `${Math.round(100 * scale)} %`;
  byId("fit").setAttribute("aria-pressed", view.scale === null);
}

function movable() {
  const { width, height, scale, across, down } = geometry();
  return view.scale !== null && (width * scale > across + 1 || height * scale > down + 1);
}

// Enlarge so that the point of the image under (x, y), in pixels of the window, stays there.
function zoomTo(scale, x, y) {
  const now = geometry();
  const wanted = Math.min(Math.max(scale, Math.min(now.fit, STEPS[0])), MOST_ENLARGED);
  const [dx, dy] = [x - now.across / 2, y - now.down / 2];
  view.centre = [view.centre[0] + dx / now.scale - dx / wanted, view.centre[1] + dy / now.scale - dy / wanted];
  view.scale = wanted;
  place();
  writeLink();
}

function zoomStep(by) {
  const { scale, across, down } = geometry();
  const next = by > 0 ? STEPS.find((s) => s > 1.01 * scale) : STEPS.findLast((s) => s < 0.99 * scale);
  if (next) zoomTo(next, across / 2, down / 2);
}

function fit() {
  view.scale = null;
  place();
  writeLink();
}

// --- fingers, mouse and keys ---------------------------------------------------------------------

function setMode(mode) {
  Object.assign(view, { mode, second: false });
  showPictures();
  writeLink();
}

function blink() {
  if (view.mode === "blink") {
    view.second = !view.second;
    byId("stage").classList.toggle("second", view.second);
  } else setMode("blink");
}

function toggleErrors() {
  if (!hasClean()) return;
  view.errors = !view.errors;
  showPictures();
  writeLink();
}

function toggleBoxes() {
  if (!hasBoxes()) return;
  view.boxes = !view.boxes;
  showPictures();
}

function startPointers(stage) {
  const down = new Map(); // pointers on the picture: where they are
  let moved = false;
  let slides = false;
  const inWindow = (event) => {
    const frame = event.target.closest(".window") ?? panes[0].layer.parentElement;
    const box = frame.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const slideTo = (event) => {
    const box = stage.getBoundingClientRect();
    view.split = Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width));
    place();
  };
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !event.target.closest(".window, .handle")) return;
    if (down.size === 0) {
      moved = false;
      slides = view.mode === "slider" && (event.target.matches(".handle") || !movable());
      if (slides && event.pointerType === "mouse") slideTo(event);
    }
    down.set(event.pointerId, [event.clientX, event.clientY]);
    event.target.setPointerCapture(event.pointerId);
    if (event.pointerType === "mouse") event.preventDefault(); // no dragging of the image itself
  });
  stage.addEventListener("pointermove", (event) => {
    const before = down.get(event.pointerId);
    if (!before) return;
    const [dx, dy] = [event.clientX - before[0], event.clientY - before[1]];
    if (!moved && Math.hypot(dx, dy) < 4) return;
    moved = true;
    const other = [...down].find(([id]) => id !== event.pointerId)?.[1];
    down.set(event.pointerId, [event.clientX, event.clientY]);
    if (other) {
      const apart = (x, y) => Math.hypot(x - other[0], y - other[1]);
      const [x, y] = inWindow(event);
      zoomTo((geometry().scale * apart(event.clientX, event.clientY)) / Math.max(1, apart(...before)), x, y);
    } else if (slides) slideTo(event);
    else if (movable()) {
      const { scale } = geometry();
      view.centre = [view.centre[0] - dx / scale, view.centre[1] - dy / scale];
      stage.classList.add("dragging");
      place();
    }
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    stage.addEventListener(kind, (event) => {
      if (!down.delete(event.pointerId)) return;
      stage.classList.remove("dragging");
      if (kind === "pointerup" && !moved && down.size === 0) {
        if (view.mode === "blink") blink();
        else if (slides) slideTo(event);
      }
      writeLink();
    });
  }
  stage.addEventListener("dblclick", (event) => {
    if (view.mode === "blink" || event.target.matches(".handle")) return;
    if (view.scale === null) zoomTo(4, ...inWindow(event));
    else fit();
  });
  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the wheel alone scrolls the page
    event.preventDefault();
    zoomTo(geometry().scale * Math.exp(-event.deltaY / 300), ...inWindow(event));
  }, { passive: false });
}

function startPictures() {
  startPointers(byId("stage"));
  byId("split").addEventListener("input", (event) => { view.split = Number(event.target.value); place(); });
  byId("zoom-in").addEventListener("click", () => zoomStep(1));
  byId("zoom-out").addEventListener("click", () => zoomStep(-1));
  byId("fit").addEventListener("click", fit);
  byId("errors").addEventListener("click", toggleErrors);
  byId("boxes").addEventListener("click", toggleBoxes);
  startPlayer();
  for (const button of byId("modes").children) button.addEventListener("click", () => setMode(button.dataset.mode));

  // After a click or a tap the keys control the pictures again; keyboard users keep the focus.
  let byKeys = false;
  document.addEventListener("pointerdown", () => { byKeys = false; }, true);
  document.addEventListener("click", (event) => { if (event.detail) event.target.closest("button")?.blur(); });
  document.addEventListener("change", (event) => { if (!byKeys && event.target.matches("select")) event.target.blur(); });
  const keys = {
    n: () => step(1), p: () => step(-1), x: () => changeSides(view.b, view.a), e: toggleErrors, d: toggleBoxes, " ": blink,
    s: () => setMode("slider"), a: () => setMode("all"), b: () => setMode("blink"),
    k: togglePlay, ",": () => stepFrame(-1), ".": () => stepFrame(1), l: toggleLoop,
    "+": () => zoomStep(1), "=": () => zoomStep(1), "-": () => zoomStep(-1), 0: fit,
  };
  document.addEventListener("keydown", (event) => {
    byKeys = true;
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input[type=search]")) return;
    if (event.key === " " && event.target.matches("button, a, summary")) return;
    if (!Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
  });
}
