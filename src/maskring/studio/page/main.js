// Starts the page, and ties buttons and keys to what they do.

import { placeOf, remember, remembered } from "./address.js";
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
byId("frame").addEventListener("input", (event) => event.target.value && app.state && seek(+event.target.value));
byId("frame").addEventListener("change", (event) => { if (app.state) seek(+event.target.value); event.target.blur(); });
byId("import-file").addEventListener("change", (event) => importMasks(event.target.files[0]));
byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  remember("theme", root.dataset.theme);
  app.timeline.draw();
});
const theme = remembered("theme");
if (theme) document.documentElement.dataset.theme = theme;

// What the mouse pressed does not keep the focus: Space goes on to play, arrows to change the frame.
document.addEventListener("click", ({ target, pointerType }) => {
  const control = target.closest("button, input[type=range]");
  if (pointerType && control && !control.closest("dialog")) control.blur();
});

listenToKeys(guarded, app.stage, (n) => app.state?.objects[n] && select(app.state.objects[n].id));
setTool("move");
setRadius(6);

// The address names the clip and the frame: a reload comes back to both, and so do the browser's back and forward.
function goToAddress() {
  const { clip, frame } = placeOf(location.hash);
  const named = clips.find((one) => one.id === clip);
  if (!named && clips.length !== 1) return false;
  const { id } = named ?? clips[0];
  if (id !== app.clip) open(id, frame);
  else if (frame !== null && frame !== app.current && app.state) seek(frame);
  return true;
}
if (!live) addEventListener("hashchange", goToAddress);

if (live) openLive();
else if (goToAddress());
else if (clips.length) {
  byId("empty").hidden = false;
  byId("empty").firstElementChild.textContent = "Choose a clip to begin with.";
  chooseClip();
}
