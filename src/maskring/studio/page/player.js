// Which frame is shown.

import { app, complain, look } from "./app.js";
import { byId, icon } from "./panels.js";
import { paint } from "./pictures.js";

const MAX_LOADING = 3; // frames on their way; while a key is held down, on a slow connection, the ones between are left out
const LATE = 300; // milliseconds after which the stage says that a frame is being loaded
const SLOW = 500; // milliseconds: where frames take longer, their neighbours are not fetched as well
const STAY = 150; // milliseconds that somebody stays on a frame after a jump before its neighbours are fetched

let onMove = () => {};
const loading = new Set(); // promises
let staying = null;
let orders = 0;
let shown = 0; // order

// onMove is called after another frame was chosen.
export function listenToMoves(listener) {
  onMove = listener;
}

function fetched(frame, urgent = true) {
  const revision = app.state.masks[frame];
  return [
    app.pictures.frame(frame, app.exact && !app.playing, urgent),
    revision === undefined ? null : app.pictures.mask(frame, revision),
  ];
}

function within(frame) {
  const { first, last, missing } = app.state.frames;
  frame = Math.min(Math.max(frame, first), Math.max(first, last));
  while (missing.includes(frame)) frame++;
  return frame;
}

export async function show() {
  const { clip, current: frame } = app;
  const isWanted = () => frame === app.current && clip === app.clip;
  const late = setTimeout(() => isWanted() && app.stage.wait(`Loading frame ${frame}`), LATE);
  while (loading.size >= MAX_LOADING && isWanted()) await Promise.race(loading);
  if (isWanted()) await load(clip, frame, isWanted);
  clearTimeout(late);
}

async function load(clip, frame, isWanted) {
  const order = ++orders;
  const revision = app.state.masks[frame];
  const parts = fetched(frame).map((entry) => entry?.promise ?? null);
  const whole = Promise.allSettled(parts);
  loading.add(whole);
  await whole;
  loading.delete(whole);
  if (clip !== app.clip || order < shown) return; // a later one was faster
  try {
    const [image, mask] = await Promise.all(parts);
    shown = order;
    app.stage.show(image, mask, mask && app.overlayShown ? paint(mask, look()) : null);
    if (isWanted()) app.stage.wait("");
    byId("stage").dataset.frame = frame;
    byId("stage").dataset.revision = revision ?? "";
  } catch (error) {
    if (isWanted() && app.state.masks[frame] === revision) complain(error); // else a newer mask is on its way
  }
}

// Resolves when the frame is on the stage.
export function goTo(frame) {
  if (!app.state || app.state.frames.last < app.state.frames.first) return Promise.resolve();
  frame = within(frame);
  const step = frame - app.current;
  if (step) app.stage.leave();
  app.current = frame;
  if (document.activeElement !== byId("frame")) byId("frame").value = frame;
  app.timeline.goTo(frame);
  onMove();
  const begun = performance.now();
  const done = show();
  if (!app.playing && !app.following) done.then(() => performance.now() - begun < SLOW && fetchNeighbours(frame, step));
  return done;
}

// After the frame itself, which they would delay. Who steps through frames wants the next ones, who jumps perhaps none.
function fetchNeighbours(frame, step) {
  const fetchAll = (...near) => frame === app.current && near.forEach((other) => other === within(other) && fetched(other, false));
  clearTimeout(staying);
  if (Math.abs(step) === 1) fetchAll(frame + step, frame + 2 * step);
  else staying = setTimeout(fetchAll, STAY, frame + 1, frame - 1);
}

export function seek(frame) {
  pause();
  goTo(frame);
}

export async function play() {
  const turn = (app.playing = {}); // pressed twice, the first loop must not go on beside the second
  setPlayIcon();
  if (app.current >= app.state.frames.last) goTo(app.state.frames.first);
  let due = performance.now();
  while (app.playing === turn) {
    const next = within(app.current + 1);
    if (next <= app.current) break;
    for (let ahead = next; ahead < next + app.pictures.ahead && ahead <= app.state.frames.last; ahead++) if (ahead === within(ahead)) fetched(ahead);
    await Promise.allSettled(fetched(next).map((entry) => entry?.promise));
    due = Math.max(due + 1000 / app.state.frames.fps, performance.now() - 50);
    await new Promise((done) => setTimeout(done, Math.max(0, due - performance.now())));
    if (app.playing === turn) goTo(next);
  }
  if (app.playing === turn) pause();
}

export function pause() {
  if (!app.playing) return;
  app.playing = false;
  setPlayIcon();
  if (app.exact) show();
}

function setPlayIcon() {
  byId("play").replaceChildren(icon(app.playing ? "pause" : "play"));
  byId("play").setAttribute("aria-label", app.playing ? "Pause" : "Play");
}

// frames: numbers to choose from; the next one in a direction is shown
export function jumpTo(frames, forward) {
  const later = frames.map(Number).sort((a, b) => a - b);
  const target = forward ? later.find((frame) => frame > app.current) : later.reverse().find((frame) => frame < app.current);
  if (target !== undefined) seek(target);
}

export function nextDoubtful() {
  const frames = app.state.doubts.map((doubt) => doubt.frame);
  const target = frames.find((frame) => frame > app.current) ?? frames[0];
  if (target !== undefined) seek(target);
}
