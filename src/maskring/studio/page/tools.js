// The tools, their size, and the strokes on their way to the server.

import { app, complain } from "./app.js";
import { byId } from "./panels.js";

export const TOOLS = ["move", "box", "polygon", "scribble", "brush", "eraser"];

let pending = Promise.resolve(); // strokes are sent one after another
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

export function endScribble() {
  scribble = null;
}

function withScribble(place, { points, outside }) {
  if (scribble?.place !== place) scribble = { place, inside: [], outside: [] };
  scribble[outside ? "outside" : "inside"].push(points);
  return { inside: scribble.inside, outside: scribble.outside };
}

// stroke: of the stage; place: names what is drawn on, for example a frame; send: posts the stroke, in its turn
export function queueStroke(stroke, place, send) {
  pending = pending.then(async () => {
    byId("stage").setAttribute("aria-busy", "true");
    try {
      await send((object) => {
        const { tool, points, radius } = stroke;
        const lines = tool === "scribble" ? withScribble(`${place} ${object}`, stroke) : {};
        return { tool, object, points, radius, ...lines };
      });
    } catch (error) {
      complain(error);
    } finally {
      app.stage.settle(stroke);
      byId("stage").setAttribute("aria-busy", "false");
    }
  });
}
