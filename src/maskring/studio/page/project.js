// The open clip: what the server says of it, and what the controls change.

import { app, colourOf, complain, select } from "./app.js";
import { getJson, listen, post } from "./api.js";
import { Pace } from "./pace.js";
import { byId, showDoubts, showObjects, toast } from "./panels.js";
import { Pictures } from "./pictures.js";
import { goTo, jumpTo, listenToMoves, nextDoubtful, pause, play, seek, show } from "./player.js";
import { endScribble, queueStroke, setTool } from "./tools.js";

let stopListening = null;

// What the server says ------------------------------------------------------------------------------

function take(state) {
  if (state.clip.id === app.state?.clip.id && state.version < app.state.version) return; // an older answer came later
  app.state = state;
  if (!state.objects.some((object) => object.id === app.selected)) app.selected = state.objects[0]?.id ?? 0;
  app.stage.colour = colourOf(app.selected);
  const { frames } = state;
  document.title = `${state.clip.name} · maskring studio`;
  byId("clip-name").textContent = state.clip.name;
  byId("frame").max = frames.last;
  byId("of-frames").textContent = `of ${Math.max(0, frames.last)}`;
  showObjects(state, app.selected, app.hidden, objectActions);
  app.timeline.set(state, app.pictures);
  showRun();
  refreshControls();
  showEmpty();
}

function showEmpty() {
  const { frames } = app.state;
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
    take(app.state);
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
    showProgress(done, total, `Exporting ${done} of ${total}`);
  },
  exported({ error, notes }) {
    showRun();
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
  byId("run").hidden = false;
  byId("progress").max = total || 1;
  byId("progress").value = done;
  byId("progress-text").textContent = text;
}

function showRun() {
  const { run } = app.state;
  byId("stop").disabled = !run;
  if (!run) { byId("run").hidden = true; return; }
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
  byId("export").disabled = !masked.length;
  byId("next-doubtful").disabled = !state.doubts.length;
  byId("accept").disabled = state.masks[current] === undefined;
  byId("accept").setAttribute("aria-pressed", String(state.accepted.includes(current)));
  showDoubts(state, current, seek);
}

// Changes -----------------------------------------------------------------------------------------

async function act(action, body = {}) {
  try {
    take(await post(`clip/${app.clip}/${action}`, body));
    show();
    return true;
  } catch (error) {
    complain(error);
    return false;
  }
}

export function sendStroke(stroke) {
  pause();
  const frame = app.current;
  queueStroke(stroke, `${app.clip} ${frame}`, async (bodyFor) => {
    if (!app.selected) {
      take(await post(`clip/${app.clip}/add_object`));
      app.selected = app.state.objects.at(-1).id;
    }
    take(await post(`clip/${app.clip}/stroke`, { frame, ...bodyFor(app.selected) }));
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

async function track(direction) {
  if (byId(`track-${direction}`).disabled) return;
  pause();
  app.following = true;
  if (!(await act("track", { frame: app.current, direction }))) app.following = false;
}

export async function importMasks(file) {
  if (!file) return;
  try {
    take(await post(`import/${app.clip}/${app.current}`, file));
    show();
    toast("The masks are there.");
  } catch (error) {
    complain(error);
  }
  byId("import-file").value = "";
}

export const projectActions = {
  play: () => (app.playing ? pause() : play()),
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
  escape: () => app.stage.cancel() || (app.state.run && act("stop")),
  undo: () => { endScribble(); if (!byId("undo").disabled) act("undo"); },
  redo: () => byId("redo").disabled || act("redo"),
  stop: () => app.state.run && act("stop"),
  repaint: show,
  import: () => byId("import-file").click(),
  export: () => byId("export").disabled || act("export"),
};

// Opening -----------------------------------------------------------------------------------------

export async function open(id) {
  stopListening?.();
  pause();
  Object.assign(app, { clip: id, state: null, selected: 0, pictures: new Pictures(id) });
  app.hidden.clear();
  location.hash = id;
  listenToMoves(refreshControls);
  byId("clip-name").textContent = "Opening";
  try {
    const first = await getJson(`clip/${id}/state`);
    if (app.clip !== id) return;
    app.stage.setSize(first.frames.width, first.frames.height);
    app.current = first.frames.first;
    take(first);
    goTo(app.current);
    let lost = false;
    stopListening = listen(`clip/${id}/events`, (message) => news[message.type]?.(message), (up) => {
      if (up && lost) toast("The server is back.");
      if (!up && !lost) toast("The server does not answer; what was saved is safe.", { bad: true });
      lost = !up;
      if (up) refreshSoon();
    }).close;
  } catch (error) {
    byId("clip-name").textContent = "Open a clip";
    byId("empty").hidden = false;
    byId("empty").firstElementChild.textContent = error.message;
    complain(error);
  }
}
