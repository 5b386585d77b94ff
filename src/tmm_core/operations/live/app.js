// The live page: draws what the server sends each second. Text only ever goes into the page as text.
"use strict";

const MOST = 600;               // readings shown: ten minutes
const STALE_MS = 5000;          // no reading for so long: say so
const history = [];
let stateText = "", lastAt = 0;

const byId = (id) => document.getElementById(id);
const number = (value, digits = 0) => value.toLocaleString("en-GB", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const rate = (value) => number(value, value > 0 && value < 100 ? 1 : 0);

function put(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

function span(seconds) {
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds % 3600 / 60)} min`;
}

function showState(reading) {
  // Announced when it changes, not each second.
  const observed = reading.mode === "observe" ? " (only observing: nothing is refused)" : "";
  const text = reading.active
    ? `Active: event ${number(reading.activations)}, Users above their allocation are throttled${observed}`
    : `Inactive: nothing is throttled${observed}`;
  if (text !== stateText) {
    stateText = text;
    put("state", text);
    byId("state").className = `state ${reading.active ? "active" : "inactive"}`;
    document.title = reading.active ? "ACTIVE - Traffic management: live" : "Traffic management: live";
  }
  const since = reading.since_s === null ? "" : `, ${reading.active ? "active" : "inactive"} for ${span(reading.since_s)}`;
  put("clock", `${reading.at.slice(0, 10)} ${reading.at.slice(11, 19)} UTC${since}`);
}

function showSystem(reading) {
  put("load", rate(reading.load));
  put("offered", rate(reading.offered));
  put("threshold", rate(reading.threshold));
  put("throttled", rate(reading.throttled));
  put("backlog", number(reading.backlog_s, 2));
  put("level", reading.level === null ? "all have what they ask for" : number(reading.level, 2));
  const made = Object.entries(reading.decisions).map(([name, value]) => `${name.replace("_", " ")} ${rate(value)}`).join(", ");
  put("facts", `Configuration ${reading.version}, ${reading.mode}; system capacity ${rate(reading.capacity)}, release threshold ` +
    `${rate(reading.release)} units per second; now ${made} units per second; ${number(reading.activations)} events since the start.`);
}

function cell(row, text, tag = "td") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (tag === "th") made.scope = "row";
  row.append(made);
  return made;
}

function showUsers(users) {
  const rows = users.map((user) => {
    const row = document.createElement("tr");
    if (user.throttled > 0) row.className = "throttled";
    cell(row, user.user, "th");
    cell(row, user.throttled > 0 ? `▲ ${rate(user.throttled)}` : "0").className = "flag";
    cell(row, rate(user.offered));
    cell(row, rate(user.allocation));
    cell(row, user.allocation > 0 ? `${number(100 * user.offered / user.allocation)} %` : "-");
    cell(row, rate(user.spare));
    cell(row, rate(user.priority));
    return row;
  });
  byId("users").replaceChildren(...rows);
}

function showSrvs(srvs) {
  const rows = srvs.map((each) => {
    const row = document.createElement("tr");
    cell(row, each.srv, "th");
    cell(row, rate(each.throttled));
    return row;
  });
  if (rows.length === 0) {
    const row = document.createElement("tr");
    cell(row, "None").colSpan = 2;
    rows.push(row);
  }
  byId("srvs").replaceChildren(...rows);
}

function draw() {
  const chart = byId("chart");
  const make = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const highest = 1.1 * Math.max(1, ...history.map((each) => Math.max(each.offered, each.load, each.threshold)));
  const x = (place) => 1000 * (place + MOST - history.length) / (MOST - 1);
  const y = (value) => 280 - 275 * value / highest;
  const parts = [];
  let from = null;
  history.forEach((each, place) => {
    if (each.active && from === null) from = place;
    const last = place === history.length - 1;
    if (from !== null && (!each.active || last)) {
      const width = Math.max(x(place) - x(from), 2);
      parts.push(make("rect", { class: "active", x: Math.min(x(from), 1000 - width), y: 0, width, height: 280 }));
      from = null;
    }
  });
  for (const name of ["threshold", "offered", "load"]) {
    const points = history.map((each, place) => `${x(place).toFixed(1)},${y(each[name]).toFixed(1)}`).join(" ");
    parts.push(make("polyline", { class: name, points }));
  }
  chart.replaceChildren(...parts);
  const peak = history.reduce((found, each) => (each.offered > found.offered ? each : found), history[0]);
  const active = history.filter((each) => each.active).length;
  const seconds = Math.round((Date.parse(history[history.length - 1].at) - Date.parse(history[0].at)) / 1000);
  put("chart-text", `Scale 0 to ${rate(highest)}. Highest offered load in ${span(seconds)}: ${rate(peak.offered)} at ` +
    `${peak.at.slice(11, 19)} UTC, operating threshold ${rate(peak.threshold)}. Active in ${number(active)} of ${number(history.length)} readings.`);
}

function take(reading) {
  lastAt = Date.now();
  put("connection", "Connected");
  if (history.length === 0 || reading.seq > history[history.length - 1].seq) history.push(reading);
  else if (reading.seq < history[history.length - 1].seq) history.splice(0, history.length, reading); // the server was started again
  if (history.length > MOST) history.shift();
  showState(reading);
  showSystem(reading);
  showUsers(reading.users);
  showSrvs(reading.srvs);
  draw();
}

async function begin() {
  try {
    history.push(...(await (await fetch("/history.json")).json()).slice(-MOST));
    const latest = await (await fetch("/state.json")).text();
    if (latest) take(JSON.parse(latest));
  } catch (error) {
    // The stream below tries again by itself.
  }
  const stream = new EventSource("/events");
  stream.onmessage = (message) => take(JSON.parse(message.data));
  stream.onerror = () => put("connection", "Connection lost: trying again; figures are old");
  setInterval(() => {
    if (lastAt && Date.now() - lastAt > STALE_MS) put("connection", "No reading for some seconds: figures are old");
  }, 1000);
}

begin();
