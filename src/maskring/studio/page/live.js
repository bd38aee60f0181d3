// A camera or stream: its newest frames, and what is drawn on a frozen one.

import { app, colourOf, complain, look, select } from "./app.js";
import { getBitmap, listen, post } from "./api.js";
import { byId, icon, linkTeller, showObjects } from "./panels.js";
import { idsOf, MASK_OPTIONS, paint } from "./pictures.js";
import { endScribble, queue, queueStroke, setTool, settled } from "./tools.js";

const decoder = new TextDecoder();

let link = null;
let page = null; // the server's name for this page
let shown = null; // {frame, image, mask} on the stage
let frozen = null; // promise of the server's consent, while a frame is held
let given = []; // frames that came while one was held
let showing = Promise.resolve(); // frames are shown one after another

// Frames ------------------------------------------------------------------------------------------

async function takeFrame(buffer) {
  const headerBytes = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(decoder.decode(new Uint8Array(buffer, 4, headerBytes)));
  const [begin, middle] = [4 + headerBytes, 4 + headerBytes + header.jpeg];
  showFigures(header);
  if (frozen) return void given.push(header.frame);
  const [image, mask] = await Promise.all([
    createImageBitmap(new Blob([new Uint8Array(buffer, begin, header.jpeg)])),
    middle < buffer.byteLength ? createImageBitmap(new Blob([new Uint8Array(buffer, middle)]), MASK_OPTIONS).then(idsOf) : null,
  ]);
  if (frozen) return void given.push(header.frame);
  const before = shown?.image;
  shown = { frame: header.frame, image, mask };
  repaint();
  before?.close();
  requestAnimationFrame(() => link.send([header.frame, true])); // after the stage has painted
}

function repaint() {
  if (!shown) return;
  app.stage.show(shown.image, shown.mask, shown.mask && app.overlayShown ? paint(shown.mask, look()) : null);
  byId("empty").hidden = true;
  byId("stage").dataset.frame = shown.frame;
}

function showFigures({ fps, latency, dropped, skipped, undecodable, reconnects }) {
  const parts = [];
  if (fps) parts.push(`${fps} fps`);
  if (latency) parts.push(`latency ${latency.p50} ms, p99 ${latency.p99} ms`);
  parts.push(`dropped ${dropped}`);
  if (skipped) parts.push(`not shown ${skipped}`);
  if (undecodable) parts.push(`undecodable ${undecodable}`);
  if (reconnects) parts.push(`reconnects ${reconnects}`);
  byId("figures").textContent = parts.join(" · ");
}

// What the server says ------------------------------------------------------------------------------

const news = {
  state(state) {
    if (state.page) {
      page = state.page;
      release(); // what was frozen over an earlier connection is gone
    }
    take(state);
  },
  told: ({ error }) => complain(new Error(error)),
};

function take(state) {
  if (state.version < app.state?.version) return; // an older answer came later
  app.state = state;
  if (!state.objects.some((object) => object.id === app.selected)) app.selected = state.objects[0]?.id ?? 0;
  app.stage.colour = colourOf(app.selected);
  app.stage.setSizeOnce(state.width, state.height);
  document.title = `${state.name} · maskring studio`;
  byId("clip-name").textContent = state.name;
  byId("saved").textContent = state.ended ? `Ended: ${state.ended}` : "Live";
  if (state.ended && !shown) byId("empty").firstElementChild.textContent = state.ended;
  showObjects(state, app.selected, app.hidden, objectActions);
  showFrozen();
}

function showFrozen() {
  const { catching_up: catching, ended, undo } = app.state;
  const button = byId("freeze");
  button.replaceChildren(icon(frozen ? "play" : "pause"), frozen ? "Go on" : "Freeze");
  button.setAttribute("aria-label", frozen ? "Go on" : "Freeze");
  button.disabled = Boolean(ended) || (!frozen && Boolean(catching));
  byId("undo").disabled = !frozen || !undo;
  byId("redo").disabled = true;
  const text = frozen ? `Frozen at frame ${shown?.frame}: draw, then go on.` : catching ? `Finding what was drawn: ${catching[0]} of ${catching[1]} frames` : "";
  byId("live-status").textContent = text;
}

// Freezing and drawing ------------------------------------------------------------------------------

function freeze() {
  if (frozen || !shown || app.state.ended) return;
  frozen = post("live/freeze", { page, frame: shown.frame }).then(take);
  frozen.catch((error) => { complain(error); release(); });
  showFrozen();
}

// The server sends frames again; those that were held back count as not shown.
function release() {
  frozen = null;
  byId("stage").dataset.revision = "";
  for (const frame of given.splice(0)) link.send([frame, false]);
  if (app.state) showFrozen();
}

async function goOn() {
  endScribble();
  app.stage.cancel();
  await settled(); // strokes on their way
  try {
    await frozen;
    take(await post("live/go_on", { page }));
    release();
  } catch (error) {
    complain(error);
    release();
  }
}

export const freezeForStroke = freeze;

export function sendLiveStroke(stroke) {
  queueStroke(stroke, `live ${shown?.frame}`, async (chosen, bodyFor) => {
    if (!frozen) throw new Error("No frame is frozen; freeze one first.");
    await frozen;
    let object = chosen || app.selected;
    if (!object) {
      take(await post("live/add_object", { page }));
      object = app.selected = app.state.objects.at(-1).id;
    }
    take(await post("live/stroke", { page, ...bodyFor(object) }));
    await showDrawing();
  });
}

async function showDrawing() {
  const { revision } = app.state;
  const mask = idsOf(await getBitmap(`live/drawing.png?${revision}`, MASK_OPTIONS));
  if (!frozen) return;
  shown.mask = mask;
  repaint();
  byId("stage").dataset.revision = revision;
}

function act(action, body = {}) {
  return queue(async () => take(await post(`live/${action}`, { page, ...body })));
}

const objectActions = {
  select,
  change: async (id, changes) => { await act("change_object", { id, ...changes }); repaint(); },
  remove: async (id) => { await act("remove_object", { id }); repaint(); },
  toggle(id) {
    if (!app.hidden.delete(id)) app.hidden.add(id);
    showObjects(app.state, app.selected, app.hidden, objectActions);
    repaint();
  },
};

export const liveActions = {
  play: () => (frozen ? goOn() : freeze()),
  addObject: async () => {
    if (await act("add_object")) select(app.state.objects.at(-1).id);
    if (app.stage.tool === "move") setTool("box");
  },
  removeObject: () => app.selected && objectActions.remove(app.selected),
  escape: () => app.stage.cancel(),
  undo: async () => {
    endScribble();
    if (frozen && app.state.undo && (await act("undo"))) await showDrawing().catch(complain);
  },
  redo: () => {},
  repaint,
};

// Opening -----------------------------------------------------------------------------------------

export function openLive() {
  document.body.dataset.live = "";
  byId("open").disabled = true;
  byId("stage").dataset.revision = "";
  byId("empty").hidden = false;
  byId("empty").firstElementChild.textContent = "Waiting for the first frame";
  const tell = linkTeller();
  const onLink = (up, why) => {
    tell(up, why);
    if (!up) given = [];
  };
  const onFrame = (buffer) => { showing = showing.then(() => takeFrame(buffer)).catch(complain); };
  link = listen("live/frames", (message) => news[message.type]?.(message), onLink, onFrame);
}
