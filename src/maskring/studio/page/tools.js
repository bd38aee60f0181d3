// The tools, their size, and the changes on their way to the server.

import { app, complain } from "./app.js";
import { byId } from "./panels.js";

export const TOOLS = ["move", "box", "polygon", "scribble", "brush", "eraser"];

const MAX_POINTS = 4000; // of a stroke; the server takes some more
const MAX_SCRIBBLE_POINTS = 60; // of each line: all lines of a scribble are sent together

let pending = Promise.resolve();
let waiting = 0; // changes
let strokes = 0; // those of them that are strokes
let scribble = null; // all its strokes count together, until another place or tool is chosen

export function setTool(tool) {
  endScribble();
  app.stage.setTool(tool);
  for (const button of document.querySelectorAll("button[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
  byId("tools").toggleAttribute("data-sized", tool === "brush" || tool === "eraser");
}

export function setRadius(radius) {
  const { stage } = app;
  stage.radius = Math.min(Math.max(radius, 0), 60);
  byId("radius").value = stage.radius;
  const width = Math.min(26, 2 * stage.radius + 2);
  byId("radius-dot").style.width = byId("radius-dot").style.height = `${width}px`;
  stage.draw();
}

// Changes -----------------------------------------------------------------------------------------

// Changes reach the server in the order in which they are made: what follows a stroke waits for its mask.
// Resolves to whether it went well; the user is told of errors.
export function queue(change) {
  waiting++;
  pending = pending.then(change).then(() => true, (error) => (complain(error), false)).finally(() => waiting--);
  return pending;
}

// Resolves when all changes so far are made.
export const settled = () => pending;

export const isSettled = () => !waiting;

// Strokes -----------------------------------------------------------------------------------------

export function endScribble() {
  scribble = null;
}

function withScribble(place, { points, outside }) {
  if (scribble?.place !== place) scribble = { place, inside: [], outside: [] };
  scribble[outside ? "outside" : "inside"].push(thinned(points, MAX_SCRIBBLE_POINTS));
  return { inside: [...scribble.inside], outside: [...scribble.outside] };
}

function thinned(points, most) {
  const step = Math.ceil(points.length / most);
  return points.filter((_, i) => i % step === 0 || i === points.length - 1);
}

// stroke: of the stage, for the object that is chosen now; place: names what is drawn on, for example a frame;
// send: posts the stroke, in its turn. It gets the object, 0 for a new one, and what makes the stroke's body for an object.
export function queueStroke(stroke, place, send) {
  const { tool, radius } = stroke;
  const chosen = app.selected;
  const lines = tool === "scribble" ? withScribble(`${place} ${chosen}`, stroke) : {};
  const points = thinned(stroke.points, MAX_POINTS);
  const bodyFor = (object) => {
    if (!chosen && scribble?.place === `${place} 0`) scribble.place = `${place} ${object}`;
    return { tool, object, points, radius, ...lines };
  };
  strokes++;
  byId("stage").setAttribute("aria-busy", "true");
  return queue(async () => {
    try {
      await send(chosen, bodyFor);
    } finally {
      app.stage.settle(stroke);
      if (!--strokes) byId("stage").setAttribute("aria-busy", "false");
    }
  });
}
