// Which frame is shown.

import { app, complain, look } from "./app.js";
import { byId, icon } from "./panels.js";
import { paint } from "./pictures.js";

const AHEAD = 8; // frames that are fetched before they are played

let onMove = () => {};

// onMove is called after another frame was chosen.
export function listenToMoves(listener) {
  onMove = listener;
}

function fetched(frame) {
  const revision = app.state.masks[frame];
  return [app.pictures.frame(frame, app.exact && !app.playing), revision === undefined ? null : app.pictures.mask(frame, revision)];
}

function within(frame) {
  const { first, last, missing } = app.state.frames;
  frame = Math.min(Math.max(frame, first), Math.max(first, last));
  while (missing.includes(frame)) frame++;
  return frame;
}

export async function show() {
  const { clip, current: frame } = app;
  const [pictured, masked] = fetched(frame);
  try {
    const [image, mask] = await Promise.all([pictured.promise, masked?.promise ?? null]);
    if (frame !== app.current || clip !== app.clip) return;
    app.stage.show(image, mask, mask && app.overlayShown ? paint(mask, look()) : null);
    byId("stage").dataset.frame = frame;
    byId("stage").dataset.revision = app.state.masks[frame] ?? "";
  } catch (error) {
    if (frame === app.current && clip === app.clip) complain(error);
  }
}

// Resolves when the frame is on the stage.
export function goTo(frame) {
  if (!app.state || app.state.frames.last < app.state.frames.first) return Promise.resolve();
  frame = within(frame);
  if (frame !== app.current) app.stage.cancel();
  app.current = frame;
  if (document.activeElement !== byId("frame")) byId("frame").value = frame;
  app.timeline.goTo(frame);
  onMove();
  const shown = show();
  if (!app.playing && !app.following) shown.then(() => fetchNeighbours(frame));
  return shown;
}

// After the frame itself, which they would delay.
function fetchNeighbours(frame) {
  if (frame !== app.current) return;
  for (const near of [frame + 1, frame - 1]) if (near === within(near)) fetched(near);
}

export function seek(frame) {
  pause();
  goTo(frame);
}

export async function play() {
  app.playing = true;
  setPlayIcon();
  if (app.current >= app.state.frames.last) goTo(app.state.frames.first);
  let due = performance.now();
  while (app.playing) {
    const next = within(app.current + 1);
    if (next <= app.current) break;
    for (let ahead = next; ahead < next + AHEAD && ahead <= app.state.frames.last; ahead++) if (ahead === within(ahead)) fetched(ahead);
    await Promise.allSettled(fetched(next).map((entry) => entry?.promise));
    due = Math.max(due + 1000 / app.state.frames.fps, performance.now() - 50);
    await new Promise((done) => setTimeout(done, Math.max(0, due - performance.now())));
    if (app.playing) goTo(next);
  }
  pause();
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
