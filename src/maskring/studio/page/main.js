// The page: what is open, which frame is shown, and what the controls do.

import { getJson, listen, post } from "./api.js";
import { listenToKeys, showKeys } from "./keys.js";
import { byId, icon, showClips, showDoubts, showObjects, toast } from "./panels.js";
import { paint, Pictures } from "./pictures.js";
import { Stage } from "./stage.js";
import { Timeline } from "./timeline.js";

const AHEAD = 8; // frames that are fetched before they are played

let clip = null; // id
let state = null; // of the server
let pictures = null;
let current = 0;
let selected = 0; // object
let exact = false;
let playing = false;
let overlayShown = true;
let stopListening = null;
let pending = Promise.resolve(); // strokes are sent one after another
const hidden = new Set();

const stage = new Stage(byId("stage"), { stroke: sendStroke, readout, exact: setExact });
const timeline = new Timeline(byId("timeline"), (frame) => { pause(); goTo(frame); });

// Frames ------------------------------------------------------------------------------------------

function look() {
  const colours = [];
  for (const { id, colour } of state.objects) colours[id] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const opacity = byId("opacity").value / 100;
  return { colours, hidden, opacity, key: JSON.stringify([state.objects.map((o) => [o.id, o.colour]), [...hidden], opacity]) };
}

function fetched(frame) {
  const revision = state.masks[frame];
  return [pictures.frame(frame, exact && !playing), revision === undefined ? null : pictures.mask(frame, revision)];
}

function within(frame) {
  const { first, last, missing } = state.frames;
  frame = Math.min(Math.max(frame, first), Math.max(first, last));
  while (missing.includes(frame)) frame++;
  return frame;
}

async function show() {
  const frame = current;
  const [pictured, masked] = fetched(frame);
  const shownClip = clip;
  try {
    const [image, mask] = await Promise.all([pictured.promise, masked?.promise ?? null]);
    if (frame !== current || shownClip !== clip) return;
    stage.show(image, mask, mask && overlayShown ? paint(mask, look()) : null);
    byId("stage").dataset.frame = frame;
    byId("stage").dataset.revision = state.masks[frame] ?? "";
  } catch (error) {
    if (frame === current && shownClip === clip) complain(error);
  }
}

function goTo(frame) {
  if (!state || state.frames.last < state.frames.first) return;
  frame = within(frame);
  if (frame !== current) stage.cancel();
  current = frame;
  if (document.activeElement !== byId("frame")) byId("frame").value = frame;
  timeline.goTo(frame);
  refreshControls();
  show();
  if (!playing) for (const near of [frame + 1, frame - 1]) if (near === within(near)) fetched(near);
}

async function play() {
  playing = true;
  setPlayIcon();
  if (current >= state.frames.last) goTo(state.frames.first);
  let due = performance.now();
  while (playing) {
    const next = within(current + 1);
    if (next <= current) break;
    for (let ahead = next; ahead < next + AHEAD && ahead <= state.frames.last; ahead++) if (ahead === within(ahead)) fetched(ahead);
    await Promise.allSettled(fetched(next).map((entry) => entry?.promise));
    due = Math.max(due + 1000 / state.frames.fps, performance.now() - 50);
    await new Promise((done) => setTimeout(done, Math.max(0, due - performance.now())));
    if (playing) goTo(next);
  }
  pause();
}

function pause() {
  if (!playing) return;
  playing = false;
  setPlayIcon();
  if (exact) show();
}

function setPlayIcon() {
  byId("play").replaceChildren(icon(playing ? "pause" : "play"));
  byId("play").setAttribute("aria-label", playing ? "Pause" : "Play");
}

function setExact(wanted) {
  if (wanted === exact) return;
  exact = wanted;
  if (state && !playing) show();
}

function jumpTo(frames, forward) {
  const later = frames.map(Number).sort((a, b) => a - b);
  const target = forward ? later.find((frame) => frame > current) : later.reverse().find((frame) => frame < current);
  if (target !== undefined) { pause(); goTo(target); }
}

function nextDoubtful() {
  const frames = state.doubts.map((doubt) => doubt.frame);
  const target = frames.find((frame) => frame > current) ?? frames[0];
  if (target !== undefined) { pause(); goTo(target); }
}

// What the server says ------------------------------------------------------------------------------

function take(news) {
  state = news;
  if (!state.objects.some((object) => object.id === selected)) selected = state.objects[0]?.id ?? 0;
  stage.colour = state.objects.find((object) => object.id === selected)?.colour ?? "#ffffff";
  const { frames } = state;
  document.title = `${state.clip.name} · maskring studio`;
  byId("clip-name").textContent = state.clip.name;
  byId("frame").max = frames.last;
  byId("of-frames").textContent = `of ${Math.max(0, frames.last)}`;
  showObjects(state, selected, hidden, objectActions);
  timeline.set(state, pictures);
  showRun();
  refreshControls();
  showEmpty();
}

function showEmpty() {
  const { frames } = state;
  const nothing = frames.last < frames.first;
  byId("empty").hidden = !nothing;
  byId("empty").firstElementChild.textContent = frames.error ?? "Decoding the first frames";
  const part = frames.complete ? "Saved" : `Decoding: ${frames.count} of ${frames.expected} frames`;
  byId("saved").textContent = frames.error && !nothing ? frames.error : part;
}

async function refresh() {
  const asked = clip;
  const news = await getJson(`clip/${asked}/state`);
  if (asked !== clip) return;
  const frame = current;
  const before = state?.masks[frame];
  const begins = !state || state.frames.last < state.frames.first;
  take(news);
  if (begins) goTo(frame);
  else if (before !== state.masks[frame]) show();
  else if (!playing) show();
}

let refreshing = null;
let again = false;
function refreshSoon() {
  if (refreshing) { again = true; return; }
  refreshing = refresh().catch(complain).finally(() => {
    refreshing = null;
    if (again) { again = false; refreshSoon(); }
  });
}

const news = {
  changed: refreshSoon,
  decoded({ last, count }) {
    if (!state) return;
    const begins = state.frames.last < state.frames.first;
    Object.assign(state.frames, { last: Math.max(last, state.frames.last), count });
    if (begins) state.frames.first = Math.min(state.frames.first, last);
    take(state);
    if (begins) refreshSoon();
  },
  status({ text }) {
    byId("progress-text").textContent = text;
  },
  tracked({ frame, revision, measured, run }) {
    if (!state) return;
    state.masks[frame] = revision;
    state.measured[frame] = measured;
    state.run = run;
    timeline.draw();
    showRun();
    if (!playing && following) goTo(frame);
    else if (frame === current) show();
  },
  ended({ error, stopped, frames, fps }) {
    if (error) complain(new Error(error));
    else toast(`${stopped ? "Stopped after" : "Tracked"} ${frames} frames. ${fps} fps`);
    following = false;
  },
  exporting({ done, total }) {
    showProgress(done, total, `Exporting ${done} of ${total}`);
  },
  exported({ error }) {
    showRun();
    if (error) return complain(new Error(error));
    download();
    toast("The zip is complete: masks, overlay video, measures, names.", { action: { name: "Download again", act: download }, seconds: 12 });
  },
};

function download() {
  const link = Object.assign(document.createElement("a"), { href: `clip/${clip}/export.zip`, download: "" });
  link.click();
}

async function act(action, body = {}) {
  try {
    take(await post(`clip/${clip}/${action}`, body));
    show();
    return true;
  } catch (error) {
    complain(error);
    return false;
  }
}

function complain(error) {
  toast(error.message, { bad: true });
}

// Progress ----------------------------------------------------------------------------------------

let following = false; // the frame that is shown goes with the run that this page started

function showProgress(done, total, text) {
  byId("run").hidden = false;
  byId("progress").max = total || 1;
  byId("progress").value = done;
  byId("progress-text").textContent = text;
}

function showRun() {
  const { run } = state;
  byId("stop").disabled = !run;
  if (!run) { byId("run").hidden = true; refreshControls(); return; }
  const parts = [run.done ? `${run.done} of ${run.total}` : "Opening the model"];
  if (run.fps) parts.push(`${run.fps} fps`);
  if (run.left !== undefined && run.left !== null) parts.push(`${time(run.left)} left`);
  showProgress(run.done, run.total, parts.join(" · "));
  refreshControls();
}

const time = (seconds) => (seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`);

// Drawing -----------------------------------------------------------------------------------------

function sendStroke(stroke) {
  pause();
  const frame = current;
  const send = async () => {
    byId("stage").setAttribute("aria-busy", "true");
    try {
      if (!selected) {
        take(await post(`clip/${clip}/add_object`));
        selected = state.objects[state.objects.length - 1].id;
      }
      const { tool, points, radius } = stroke;
      const lines = tool === "scribble" ? withScribble(frame, stroke) : {};
      take(await post(`clip/${clip}/stroke`, { frame, tool, object: selected, points, radius, ...lines }));
      await show();
    } catch (error) {
      complain(error);
    } finally {
      stage.settle(stroke);
      byId("stage").setAttribute("aria-busy", "false");
    }
  };
  pending = pending.then(send);
}

// All strokes of a scribble count together, until another frame, object or tool is chosen.
let scribble = null;
function withScribble(frame, { points, outside }) {
  const place = `${clip} ${frame} ${selected}`;
  if (scribble?.place !== place) scribble = { place, inside: [], outside: [] };
  scribble[outside ? "outside" : "inside"].push(points);
  return { inside: scribble.inside, outside: scribble.outside };
}

function setTool(tool) {
  scribble = null;
  stage.setTool(tool);
  for (const button of document.querySelectorAll("[data-tool]")) if (button.matches("button")) button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
  byId("tools").toggleAttribute("data-sized", tool === "brush" || tool === "eraser");
}

function setRadius(radius) {
  stage.radius = Math.min(Math.max(radius, 0), 60);
  byId("radius").value = stage.radius;
  const width = Math.min(26, 2 * stage.radius + 2);
  byId("radius-dot").style.width = byId("radius-dot").style.height = `${width}px`;
  stage.draw();
}

function readout(x, y, id) {
  const name = state?.objects.find((object) => object.id === id)?.name;
  byId("readout").textContent = `x ${x}  y ${y}${name ? `  ${name}` : ""}`;
}

const objectActions = {
  select(id) {
    selected = id;
    stage.colour = state.objects.find((object) => object.id === id)?.colour ?? "#ffffff";
    for (const [row, object] of [...byId("objects").children].map((node, i) => [node, state.objects[i]])) row.setAttribute("aria-current", String(object?.id === id));
  },
  change: (id, changes) => act("change_object", { id, ...changes }),
  remove: (id) => act("remove_object", { id }),
  toggle(id) {
    if (!hidden.delete(id)) hidden.add(id);
    showObjects(state, selected, hidden, objectActions);
    show();
  },
};

async function addObject() {
  if (await act("add_object")) objectActions.select(state.objects[state.objects.length - 1].id);
  if (stage.tool === "move") setTool("box");
}

function refreshControls() {
  if (!state) return;
  const masked = Object.keys(state.masks).map(Number);
  const busy = Boolean(state.run);
  byId("undo").disabled = !state.undo || busy;
  byId("redo").disabled = !state.redo || busy;
  byId("undo").dataset.tip = state.undo ? `Undo: ${state.undo} (Ctrl+Z)` : "Undo (Ctrl+Z)";
  byId("redo").dataset.tip = state.redo ? `Redo: ${state.redo} (Ctrl+Shift+Z)` : "Redo (Ctrl+Shift+Z)";
  byId("track-forward").disabled = busy || !masked.some((frame) => frame <= current);
  byId("track-backward").disabled = busy || !masked.some((frame) => frame >= current);
  byId("export").disabled = !masked.length;
  byId("next-doubtful").disabled = !state.doubts.length;
  byId("accept").disabled = state.masks[current] === undefined;
  byId("accept").setAttribute("aria-pressed", String(state.accepted.includes(current)));
  showDoubts(state, current, (frame) => { pause(); goTo(frame); });
}

// Opening -----------------------------------------------------------------------------------------

async function open(id) {
  stopListening?.();
  pause();
  clip = id;
  state = null;
  selected = 0;
  hidden.clear();
  location.hash = id;
  pictures = new Pictures(id);
  byId("clip-name").textContent = "Opening";
  try {
    const first = await getJson(`clip/${id}/state`);
    if (clip !== id) return;
    stage.setSize(first.frames.width, first.frames.height);
    current = first.frames.first;
    take(first);
    goTo(current);
    let lost = false;
    stopListening = listen(`clip/${id}/events`, (message) => news[message.type]?.(message), (up) => {
      if (up && lost) toast("The server is back.");
      if (!up && !lost) toast("The server does not answer; what was saved is safe.", { bad: true });
      lost = !up;
      if (up) refreshSoon();
    });
  } catch (error) {
    byId("clip-name").textContent = "Open a clip";
    byId("empty").hidden = false;
    byId("empty").firstElementChild.textContent = error.message;
    complain(error);
  }
}

async function chooseClip() {
  try {
    showClips(await getJson("clips"), clip, open);
  } catch (error) {
    complain(error);
  }
}

async function importMasks(file) {
  if (!file) return;
  try {
    take(await post(`import/${clip}/${current}`, file));
    show();
    toast("The masks are there.");
  } catch (error) {
    complain(error);
  }
  byId("import-file").value = "";
}

// Controls ----------------------------------------------------------------------------------------

const actions = {
  play: () => (playing ? pause() : play()),
  previous: (far) => { pause(); goTo(current - (far ? 10 : 1)); },
  next: (far) => { pause(); goTo(current + (far ? 10 : 1)); },
  first: () => { pause(); goTo(state.frames.first); },
  last: () => { pause(); goTo(state.frames.last); },
  previousDrawn: () => jumpTo(Object.keys(state.drawn), false),
  nextDrawn: () => jumpTo(Object.keys(state.drawn), true),
  nextDoubtful,
  accept: () => act("accept", { frame: current }),
  addObject,
  smaller: () => setRadius(stage.radius - 1),
  larger: () => setRadius(stage.radius + 1),
  trackForward: () => track("forward"),
  trackBackward: () => track("backward"),
  escape: () => stage.cancel() || (state.run && act("stop")),
  undo: () => { scribble = null; if (!byId("undo").disabled) act("undo"); },
  redo: () => byId("redo").disabled || act("redo"),
  toggleOverlay: () => { overlayShown = !overlayShown; show(); },
  zoomIn: () => stage.zoomBy(1.25),
  zoomOut: () => stage.zoomBy(0.8),
  fit: () => stage.fit(),
  open: chooseClip,
  import: () => byId("import-file").click(),
  export: () => byId("export").disabled || act("export"),
  help: showKeys,
  ...Object.fromEntries(["move", "box", "polygon", "scribble", "brush", "eraser"].map((tool) => [tool, () => setTool(tool)])),
};

async function track(direction) {
  if (byId(`track-${direction}`).disabled) return;
  pause();
  following = true;
  if (!(await act("track", { frame: current, direction }))) following = false;
}

const whenOpen = (name) => (...rest) => (state || ["open", "help"].includes(name)) && actions[name](...rest);
const guarded = Object.fromEntries(Object.keys(actions).map((name) => [name, whenOpen(name)]));

const BUTTONS = {
  open: "open", undo: "undo", redo: "redo", import: "import", help: "help", export: "export", first: "first", previous: "previous",
  play: "play", next: "next", last: "last", "track-forward": "trackForward", "track-backward": "trackBackward", "add-object": "addObject",
  "next-doubtful": "nextDoubtful", accept: "accept",
};
for (const [id, name] of Object.entries(BUTTONS)) byId(id).addEventListener("click", () => guarded[name]());
byId("stop").addEventListener("click", () => state?.run && act("stop"));
for (const button of document.querySelectorAll("button[data-tool]")) button.addEventListener("click", () => setTool(button.dataset.tool));
byId("radius").addEventListener("input", (event) => setRadius(+event.target.value));
byId("opacity").addEventListener("input", () => state && show());
byId("frame").addEventListener("change", (event) => { pause(); goTo(+event.target.value); event.target.blur(); });
byId("import-file").addEventListener("change", (event) => importMasks(event.target.files[0]));
byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = localStorage.theme = dark ? "light" : "dark";
  timeline.draw();
});
if (localStorage.theme) document.documentElement.dataset.theme = localStorage.theme;

listenToKeys(guarded, stage, (n) => state?.objects[n] && objectActions.select(state.objects[n].id));
setTool("move");
setRadius(6);

const clips = await getJson("clips").catch((error) => (complain(error), []));
const named = clips.find((one) => one.id === location.hash.slice(1));
if (named || clips.length === 1) open((named ?? clips[0]).id);
else if (clips.length) {
  byId("empty").hidden = false;
  byId("empty").firstElementChild.textContent = "Choose a clip to begin with.";
  chooseClip();
}
