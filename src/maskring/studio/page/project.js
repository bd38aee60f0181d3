// The open clip: what the server says of it, and what the controls change.

import { showClipInAddress, showFrameInAddress, tabName } from "./address.js";
import { app, colourOf, complain, select } from "./app.js";
import { getJson, listen, post } from "./api.js";
import { Pace } from "./pace.js";
import { byId, linkTeller, showDoubts, showObjects, toast } from "./panels.js";
import { Pictures } from "./pictures.js";
import { goTo, jumpTo, listenToMoves, nextDoubtful, pause, play, seek, show } from "./player.js";
import { endScribble, isSettled, queue, queueStroke, setTool, settled } from "./tools.js";

let stopListening = null;

// What the server says ------------------------------------------------------------------------------

function take(state) {
  if (state.clip.id !== app.clip) return; // another one was opened meanwhile
  if (state.version < app.state?.version) return; // an older answer came later
  app.state = state;
  if (!state.objects.some((object) => object.id === app.selected)) app.selected = state.objects[0]?.id ?? 0;
  app.stage.colour = colourOf(app.selected);
  const { frames } = state;
  document.title = `${state.clip.name} · maskring studio`;
  byId("clip-name").textContent = state.clip.name;
  showObjects(state, app.selected, app.hidden, objectActions);
  showRun();
  refreshControls();
  showFrames();
}

function showFrames() {
  const { frames } = app.state;
  byId("frame").max = frames.last;
  byId("of-frames").textContent = `of ${Math.max(0, frames.last)}`;
  app.timeline.set(app.state, app.pictures);
  const nothing = frames.last < frames.first;
  byId("empty").hidden = !nothing;
  byId("empty").firstElementChild.textContent = frames.error ?? "Decoding the first frames";
  const part = frames.complete ? "Saved" : `Decoding: ${frames.count} of ${frames.expected} frames`;
  byId("saved").textContent = frames.error && !nothing ? frames.error : part;
}

async function refresh() {
  const asked = app.clip;
  const state = await getJson(`clip/${asked}/state`);
  if (asked !== app.clip) return;
  const frame = app.current;
  const before = app.state?.masks[frame];
  const begins = !app.state || app.state.frames.last < app.state.frames.first;
  take(state);
  if (begins) goTo(frame);
  else if (!app.playing || before !== state.masks[frame]) show();
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

const tab = tabName();
let exporting = null; // [frames done, of all]
let reached = null; // the newest frame of the run that goes on

// Shows what a run has come to. The text of its progress is cheap, and does not wait for this.
const showTracked = new Pace(() => {
  const { run } = app.state ?? {};
  if (!run) return null;
  if (!app.playing && app.following) return goTo(run.frame);
  app.timeline.draw();
  refreshControls();
  return byId("stage").dataset.revision === String(app.state.masks[app.current] ?? "") ? null : show();
});

const news = {
  changed: refreshSoon,
  decoded({ last, count }) {
    if (!app.state) return;
    const { frames } = app.state;
    const begins = frames.last < frames.first;
    Object.assign(frames, { last: Math.max(last, frames.last), count });
    if (begins) frames.first = Math.min(frames.first, last);
    showFrames();
    if (begins) refreshSoon();
  },
  status({ text }) {
    byId("progress-text").textContent = text;
  },
  tracked({ frames, run }) {
    if (!app.state) return;
    for (const [frame, { revision, measured }] of Object.entries(frames)) {
      app.state.masks[frame] = revision;
      app.state.measured[frame] = measured;
    }
    app.state.run = run;
    reached = run.frame;
    showRun();
    showTracked.ask();
  },
  async ended({ error, stopped, frames, fps }) {
    if (app.following && !app.playing && reached !== null) await goTo(reached);
    reached = null;
    if (error) complain(new Error(error));
    else toast(`${stopped ? "Stopped after" : "Tracked"} ${frames} frames. ${fps} fps`);
    app.following = false;
  },
  exporting({ done, total }) {
    exporting = [done, total];
    showRun();
    refreshControls();
  },
  exported({ error, notes, page }) {
    exporting = null;
    showRun();
    refreshControls();
    if (page !== tab) return; // another tab's
    if (error) return complain(new Error(error));
    download();
    const text = ["The zip is complete: masks, overlay video, measures, names, and files for other programs.", ...notes.map((note) => `${note}.`)];
    toast(text.join(" "), { action: { name: "Download again", act: download }, seconds: 12 });
  },
};

function download() {
  const link = Object.assign(document.createElement("a"), { href: `clip/${app.clip}/export.zip`, download: "" });
  link.click();
}

// Progress ----------------------------------------------------------------------------------------

function showProgress(done, total, text) {
  byId("progress").max = total || 1;
  byId("progress").value = done;
  byId("progress-text").textContent = text;
}

function showRun() {
  const run = app.state?.run;
  byId("stop").disabled = !run;
  byId("run").hidden = !run && !exporting;
  if (!run) return exporting && showProgress(...exporting, `Exporting ${exporting.join(" of ")}`);
  const parts = [run.done ? `${run.done} of ${run.total}` : "Opening the model"];
  if (run.fps) parts.push(`${run.fps} fps`);
  if (run.left !== undefined && run.left !== null) parts.push(`${time(run.left)} left`);
  showProgress(run.done, run.total, parts.join(" · "));
}

const time = (seconds) => (seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`);

function refreshControls() {
  const { state, current } = app;
  if (!state) return;
  const masked = Object.keys(state.masks).map(Number);
  const busy = Boolean(state.run);
  byId("undo").disabled = !state.undo || busy;
  byId("redo").disabled = !state.redo || busy;
  byId("undo").dataset.tip = state.undo ? `Undo: ${state.undo} (Ctrl+Z)` : "Undo (Ctrl+Z)";
  byId("redo").dataset.tip = state.redo ? `Redo: ${state.redo} (Ctrl+Shift+Z)` : "Redo (Ctrl+Shift+Z)";
  byId("track-forward").disabled = busy || !masked.some((frame) => frame <= current);
  byId("track-backward").disabled = busy || !masked.some((frame) => frame >= current);
  byId("export").disabled = !masked.length || Boolean(exporting);
  byId("next-doubtful").disabled = !state.doubts.length;
  byId("accept").disabled = state.masks[current] === undefined;
  byId("accept").setAttribute("aria-pressed", String(state.accepted.includes(current)));
  showDoubts(state, current, seek);
}

// Changes -----------------------------------------------------------------------------------------

function act(action, body = {}) {
  const { clip } = app;
  return queue(async () => {
    take(await post(`clip/${clip}/${action}`, body));
    show();
  });
}

function stop() {
  if (app.state.run) post(`clip/${app.clip}/stop`).then(take, complain);
}

async function newObject(clip) {
  const state = await post(`clip/${clip}/add_object`);
  const { id } = state.objects.at(-1);
  take(state);
  if (clip === app.clip) app.selected = id;
  return id;
}

export function sendStroke(stroke) {
  pause();
  const { clip, current: frame } = app;
  queueStroke(stroke, `${clip} ${frame}`, async (chosen, bodyFor) => {
    let object = chosen || (clip === app.clip && app.selected);
    if (!object && stroke.tool === "eraser") throw new Error("There is no object to erase; draw one first.");
    object ||= await newObject(clip);
    take(await post(`clip/${clip}/stroke`, { frame, ...bodyFor(object) }));
    await show();
  });
}

const objectActions = {
  select,
  change: (id, changes) => act("change_object", { id, ...changes }),
  remove: (id) => act("remove_object", { id }),
  toggle(id) {
    if (!app.hidden.delete(id)) app.hidden.add(id);
    showObjects(app.state, app.selected, app.hidden, objectActions);
    show();
  },
};

async function addObject() {
  if (await act("add_object")) select(app.state.objects.at(-1).id);
  if (app.stage.tool === "move") setTool("box");
}

// Does something once all strokes have their masks, unless its button says then that it is not to be done.
async function whenPossible(id, action) {
  if (!isSettled()) await settled();
  if (app.state && !byId(id).disabled) action();
}

function track(direction) {
  pause();
  const frame = app.current;
  whenPossible(`track-${direction}`, async () => {
    app.following = true;
    reached = null;
    app.state.run = { direction, done: 0, total: 0, frame }; // at once: what is pressed twice is meant once
    showRun();
    refreshControls();
    if (await act("track", { frame, direction })) return;
    app.following = false;
    refreshSoon();
  });
}

function exportMasks() {
  whenPossible("export", async () => {
    exporting = [0, app.state.frames.count];
    refreshControls();
    if (await act("export", { page: tab })) return;
    exporting = null;
    showRun();
    refreshControls();
  });
}

export async function importMasks(file) {
  if (!file) return;
  const { clip, current } = app;
  const good = await queue(async () => {
    take(await post(`import/${clip}/${current}`, file));
    show();
  });
  if (good) toast("The masks are there.");
  byId("import-file").value = "";
}

export const projectActions = {
  play: () => (app.playing ? pause() : play()),
  tenBack: () => seek(app.current - 10),
  tenAhead: () => seek(app.current + 10),
  previous: (far) => seek(app.current - (far ? 10 : 1)),
  next: (far) => seek(app.current + (far ? 10 : 1)),
  first: () => seek(app.state.frames.first),
  last: () => seek(app.state.frames.last),
  previousDrawn: () => jumpTo(Object.keys(app.state.drawn), false),
  nextDrawn: () => jumpTo(Object.keys(app.state.drawn), true),
  nextDoubtful,
  accept: () => act("accept", { frame: app.current }),
  addObject,
  removeObject: () => app.selected && objectActions.remove(app.selected),
  trackForward: () => track("forward"),
  trackBackward: () => track("backward"),
  escape: () => app.stage.cancel() || stop(),
  undo: () => { endScribble(); whenPossible("undo", () => act("undo")); },
  redo: () => whenPossible("redo", () => act("redo")),
  stop,
  repaint: show,
  import: () => byId("import-file").click(),
  export: exportMasks,
};

// Opening -----------------------------------------------------------------------------------------

export async function open(id, frame = null) {
  stopListening?.();
  pause();
  Object.assign(app, { clip: id, state: null, selected: 0, following: false, pictures: new Pictures(id) });
  app.hidden.clear();
  exporting = null;
  app.stage.leave();
  showClipInAddress(id);
  listenToMoves(moved);
  byId("clip-name").textContent = "Opening";
  try {
    const first = await getJson(`clip/${id}/state`);
    if (app.clip !== id) return;
    app.stage.setSize(first.frames.width, first.frames.height);
    app.pictures.setSize(first.frames.width, first.frames.height);
    app.current = frame ?? first.seen ?? first.frames.first;
    take(first);
    goTo(app.current);
    if (first.warning) toast(first.warning, { bad: true });
    stopListening = listen(`clip/${id}/events`, (message) => news[message.type]?.(message), onLink()).close;
  } catch (error) {
    if (app.clip !== id) return;
    byId("clip-name").textContent = "Open a clip";
    byId("empty").hidden = false;
    byId("empty").firstElementChild.textContent = error.message;
    complain(error);
  }
}

function moved() {
  const { clip, current: frame, state } = app;
  refreshControls();
  if (app.following || app.playing) return; // nobody chose this frame
  settle(() => {
    if (clip !== app.clip) return;
    showFrameInAddress(clip, frame);
    if (state.seen !== frame) post(`clip/${clip}/see`, { frame }).then(({ seen }) => (state.seen = seen), () => {});
  });
}

const MOVING = 1000; // milliseconds: browsers allow few changes of the address, and they take time

let moving = null;
function settle(act) {
  clearTimeout(moving);
  moving = setTimeout(act, MOVING);
}

function onLink() {
  const tell = linkTeller();
  return (up, why) => {
    tell(up, why);
    if (!up) byId("saved").textContent = "No connection";
    else exporting = null, refreshSoon();
  };
}
