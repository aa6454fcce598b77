// The player of clips: all panes show the same frame. A method's clip is a video with the times of its
// frames in seconds, { video, times }, or pictures, { frames }; frames that it lacks are null.

const UNTIMED_RATE = 25; // frames per second of pictures, which have no times
const AHEAD = 8; // pictures that are loaded before they are shown
const MOST_APART = 0.25; // seconds; a video that is further from the first one jumps, else it hurries
const player = { frame: 0, playing: false, loop: true, shownAt: 0, pictures: new Map() };

const isClip = (file) => file !== null && typeof file === "object";
const clips = () => view.set.methods.map(({ files }) => files[view.image]).filter(isClip);
const numFrames = () => clips().reduce((most, { frames, times }) => Math.max(most, (frames ?? times).length), 0);

// When a frame begins, in seconds.
function timeOf(frame) {
  const timed = clips().find(({ times }) => times);
  return timed ? timed.times[frame] : frame / UNTIMED_RATE;
}

// How long a frame is shown; the last one as long as the one before it.
function lengthOf(frame) {
  const last = numFrames() - 1;
  if (last < 1) return 1 / UNTIMED_RATE;
  return timeOf(Math.min(frame + 1, last)) - timeOf(Math.min(frame, last - 1));
}

// The frame that is shown at a time, by the times of one video.
function frameAt(times, seconds) {
  const next = times.findIndex((time) => time > seconds + 1e-4);
  return next < 0 ? times.length - 1 : Math.max(0, next - 1);
}

// The picture that shows a method's file now, "" where a video does.
function pictureOf(file) {
  if (!isClip(file)) return file;
  return file.frames ? file.frames[player.frame] : "";
}

// The videos of the panes that this browser can play, with their times.
const films = () => panes.flatMap(({ films: both }) => [...both.values()]).filter(({ video }) => !video.hidden && !video.error);

// Put a video into a pane, in the place of ``image``, or take it away.
function showFilm(pane, image, file) {
  let film = pane.films.get(image);
  if (!file?.video) {
    if (!film) return;
    film.video.hidden = true;
    film.video.removeAttribute("src");
    film.video.load();
    return;
  }
  if (!film) {
    film = { video: element("video", { className: image.className, muted: true, playsInline: true, preload: "auto" }) };
    film.video.addEventListener("loadedmetadata", place);
    film.video.addEventListener("error", () => showFiles(pane));
    image.after(film.video);
    pane.films.set(image, film);
  }
  film.times = file.times;
  film.video.hidden = false;
  film.video.ariaLabel = image.alt;
  if (film.video.getAttribute("src") !== file.video) film.video.src = file.video;
}

// A sentence where the browser cannot play a video of a pane, else "".
function filmTrouble(pane) {
  const broken = [...pane.films.values()].find(({ video }) => !video.hidden && video.error);
  if (!broken) return "";
  const file = readable(broken.video.getAttribute("src"));
  return `Cannot play ${file}: it was moved, or this browser does not know its format (H.264 with 4:2:0 colours in MP4 plays everywhere).`;
}

// Show a frame in all panes: pictures at once, videos as soon as they have found it.
function showFrame(frame) {
  player.frame = Math.min(Math.max(0, frame), Math.max(0, numFrames() - 1));
  player.shownAt = performance.now();
  for (const { video, times } of films()) {
    const own = Math.min(player.frame, times.length - 1); // a damaged video is shorter
    video.currentTime = times[own] + lengthOf(own) / 2; // the middle: the beginning may be rounded
  }
  showPicturesOfFrame();
}

function showPicturesOfFrame() {
  panes.forEach(showFiles);
  loadAhead();
  showPlayer();
}

function showPlayer() {
  const count = numFrames();
  byId("player").hidden = count === 0;
  byId("frame").max = Math.max(0, count - 1);
  byId("frame").value = player.frame;
  byId("frame-text").textContent = count ? `frame ${player.frame + 1} of ${count}, ${timeOf(player.frame).toFixed(2)} s` : "";
  byId("frame").setAttribute("aria-valuetext", byId("frame-text").textContent);
  byId("play").textContent = player.playing ? "Pause" : "Play";
  byId("loop").setAttribute("aria-pressed", player.loop);
}

// Load the next pictures of all panes, and forget the others.
function loadAhead() {
  const count = numFrames();
  const wanted = new Map();
  for (let ahead = 1; ahead <= Math.min(AHEAD, count - 1); ahead += 1) {
    for (const link of picturesAt((player.frame + ahead) % count)) wanted.set(link, player.pictures.get(link) ?? Object.assign(new Image(), { src: link }));
  }
  player.pictures = wanted;
}

const picturesAt = (frame) => panes.flatMap(({ files }) => files).map((file) => file?.frames?.[frame]).filter(Boolean);

const isLoaded = (frame) => picturesAt(frame).every((link) => player.pictures.get(link)?.complete ?? true);

// Resolves when all videos show what they were asked for.
function ready() {
  return Promise.all(films().map(({ video }) => new Promise((resolve) => {
    const check = () => {
      if (video.error || video.hidden || (!video.seeking && video.readyState >= 2)) resolve();
      else setTimeout(check, 10);
    };
    check();
  })));
}

async function play() {
  if (player.playing || !numFrames()) return;
  player.playing = true;
  showFrame(player.frame === numFrames() - 1 ? 0 : player.frame);
  await ready();
  if (!player.playing) return;
  await Promise.all(films().map(({ video }) => video.play().catch(() => {}))); // one that fails stands still
  player.shownAt = performance.now();
  requestAnimationFrame(tick);
}

function pause() {
  if (!player.playing) return;
  player.playing = false;
  for (const { video } of films()) {
    video.pause();
    video.playbackRate = 1;
  }
  showFrame(player.frame); // the same for all, exactly
}

// One step of the clock: the first video leads, without any the time since the last frame.
function tick(now) {
  if (!player.playing) return;
  const [first, ...others] = films();
  const last = numFrames() - 1;
  let next = player.frame;
  if (first) {
    next = frameAt(first.times, first.video.currentTime);
    for (const { video } of others) {
      const behind = first.video.currentTime - video.currentTime;
      if (Math.abs(behind) > MOST_APART && !video.seeking) video.currentTime = first.video.currentTime;
      video.playbackRate = Math.min(1.2, Math.max(0.8, 1 + 4 * behind));
    }
  } else if (now - player.shownAt >= 1000 * lengthOf(player.frame) && player.frame < last && isLoaded(player.frame + 1)) {
    next = player.frame + 1;
  }
  const isOver = first ? first.video.ended : player.frame === last && now - player.shownAt >= 1000 * lengthOf(last);
  if (isOver) {
    player.frame = last;
    pause();
    if (player.loop) play();
    return;
  }
  if (next !== player.frame) {
    player.frame = next;
    player.shownAt = now;
    showPicturesOfFrame();
  }
  requestAnimationFrame(tick);
}

const togglePlay = () => (player.playing ? pause() : play());

function stepFrame(by) {
  if (!numFrames()) return;
  pause();
  showFrame(player.frame + by);
  writeLink();
}

function toggleLoop() {
  player.loop = !player.loop;
  showPlayer();
}

function startPlayer() {
  byId("play").addEventListener("click", togglePlay);
  byId("frame-back").addEventListener("click", () => stepFrame(-1));
  byId("frame-on").addEventListener("click", () => stepFrame(1));
  byId("loop").addEventListener("click", toggleLoop);
  byId("frame").addEventListener("input", (event) => stepFrame(Number(event.target.value) - player.frame));
}
