// Starts the page, and ties buttons and keys to what they do.

import { app, complain, readout, select } from "./app.js";
import { getJson } from "./api.js";
import { listenToKeys, showKeys } from "./keys.js";
import { freezeForStroke, liveActions, openLive, sendLiveStroke } from "./live.js";
import { byId, showClips } from "./panels.js";
import { seek, show } from "./player.js";
import { importMasks, open, projectActions, sendStroke } from "./project.js";
import { Stage } from "./stage.js";
import { Timeline } from "./timeline.js";
import { setRadius, setTool, TOOLS } from "./tools.js";

const clips = await getJson("clips").catch((error) => (complain(error), []));
const live = clips.length === 1 && clips[0].live;

app.stage = new Stage(byId("stage"), {
  begin: live ? freezeForStroke : () => {},
  stroke: live ? sendLiveStroke : sendStroke,
  readout,
  exact(wanted) {
    if (wanted === app.exact || live) return;
    app.exact = wanted;
    if (app.state && !app.playing) show();
  },
});
app.timeline = new Timeline(byId("timeline"), seek);

async function chooseClip() {
  try {
    showClips(await getJson("clips"), app.clip, open);
  } catch (error) {
    complain(error);
  }
}

const actions = {
  ...(live ? liveActions : { ...projectActions, open: chooseClip }),
  smaller: () => setRadius(app.stage.radius - 1),
  larger: () => setRadius(app.stage.radius + 1),
  zoomIn: () => app.stage.zoomBy(1.25),
  zoomOut: () => app.stage.zoomBy(0.8),
  fit: () => app.stage.fit(),
  toggleOverlay: () => { app.overlayShown = !app.overlayShown; actions.repaint(); },
  help: () => showKeys(actions),
  ...Object.fromEntries(TOOLS.map((tool) => [tool, () => setTool(tool)])),
};
const whenOpen = (name) => (...rest) => (app.state || ["open", "help"].includes(name)) && actions[name](...rest);
const guarded = Object.fromEntries(Object.keys(actions).map((name) => [name, whenOpen(name)]));

const BUTTONS = {
  open: "open", undo: "undo", redo: "redo", import: "import", help: "help", export: "export", first: "first", previous: "previous",
  play: "play", next: "next", last: "last", "track-forward": "trackForward", "track-backward": "trackBackward", stop: "stop",
  "add-object": "addObject", "next-doubtful": "nextDoubtful", accept: "accept", freeze: "play",
};
for (const [id, name] of Object.entries(BUTTONS)) byId(id).addEventListener("click", () => guarded[name]?.());
for (const button of document.querySelectorAll("button[data-tool]")) button.addEventListener("click", () => setTool(button.dataset.tool));
byId("radius").addEventListener("input", (event) => setRadius(+event.target.value));
byId("opacity").addEventListener("input", () => guarded.repaint());
byId("frame").addEventListener("change", (event) => { seek(+event.target.value); event.target.blur(); });
byId("import-file").addEventListener("change", (event) => importMasks(event.target.files[0]));
byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = localStorage.theme = dark ? "light" : "dark";
  app.timeline.draw();
});
if (localStorage.theme) document.documentElement.dataset.theme = localStorage.theme;

listenToKeys(guarded, app.stage, (n) => app.state?.objects[n] && select(app.state.objects[n].id));
setTool("move");
setRadius(6);

const named = clips.find((one) => one.id === location.hash.slice(1));
if (live) openLive();
else if (named || clips.length === 1) open((named ?? clips[0]).id);
else if (clips.length) {
  byId("empty").hidden = false;
  byId("empty").firstElementChild.textContent = "Choose a clip to begin with.";
  chooseClip();
}
