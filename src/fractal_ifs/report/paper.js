const DIMS = ["fractal", "curve", "depth", "width", "lr"];
const TABLES = "n=5";  // a choice among the fractals: those of the tables, neither deeper ones nor images
const PRESETS = {t1: ["depth", {fractal: TABLES, curve: "1"}], t2: ["curve", {fractal: TABLES, depth: "5"}],
  f6: ["depth", {fractal: "Vicsek, n=6", curve: "4"}], f7: ["depth", {fractal: "CIFAR-10"}]};
const KEY = "Blue: it says positive, orange: negative; strong: the fractal.";  // to a picture of what a network has learned
const values = {}, filter = {};
let DATA;

async function begin() {
  DATA = JSON.parse(await unpack("data"));
  await ready;
  for (const dim of DIMS)
    values[dim] = [...new Set(DATA.entries.map(e => String(e[dim])))].filter(v => v !== "best").sort(order);
  for (const id of ["rows", "columns"]) for (const dim of DIMS.slice(1)) at(id).append(option(dim));
  for (const dim of DIMS) {
    const label = document.createElement("label"), select = document.createElement("select");
    label.textContent = dim; select.id = "filter-" + dim;
    select.append(option("", dim === "lr" ? "best" : "all"));
    if (dim === "fractal") select.append(option(TABLES, "of depth 5 (Tables 1, 2)"));
    select.append(...values[dim].map(v => option(v)));
    select.onchange = draw; filter[dim] = select; label.append(select); at("filters").append(label);
  }
  const n = Math.max(...DATA.entries.map(e => e.n));
  for (let j = 1; j < n; j++) at("level").append(option(String(j)));
  at("level").value = String(Math.max(1, n - 2));
  const choices = Object.entries(PRESETS).map(([id, [rows, fixed]]) => {
    at(id).onclick = () => preset(rows, fixed);
    at(id).hidden = !DATA.entries.some(e => Object.entries(fixed).every(([dim, v]) => fits(e, dim, v)));
    return at(id);
  });
  for (const id of ["show", "rows", "columns", "sort", "sort-columns", "full", "level"]) at(id).onchange = draw;
  const open = choices.filter(button => !button.hidden);
  const first = open.find(button => "#" + button.id === location.hash) || open[0];  // index.html#f7 is a link to Figure 7
  first ? first.onclick() : preset("depth", {});
}
function preset(rows, fixed) {
  at("rows").value = rows; at("columns").value = "width";
  for (const dim of DIMS) filter[dim].value = fixed[dim] || "";
  draw();
}
const fits = (e, dim, v) => !v || (v === TABLES ? e.n === 5 : String(e[dim]) === v);
function shown(e) {
  const show = at("show").value;
  if (show === "acc" || show === "picture") return e.acc;
  if (show === "paper") return e.paper;
  return e.paper === null || e.paper === undefined ? null : e.acc - e.paper;
}
function draw() {
  const row = at("rows").value, column = at("columns").value, show = at("show").value;
  const axes = [row, column];
  const kept = DATA.entries.filter(e =>
    DIMS.every(dim => dim === "lr" && !axes.includes("lr") ? e.lr === (filter.lr.value || "best")
      : dim === "lr" && e.lr === "best" ? false : fits(e, dim, filter[dim].value))
    && (!at("full").checked || e.whole));
  const over = ["curve", "depth", "width"].filter(d => !axes.includes(d) && new Set(kept.map(e => e[d])).size > 1);
  for (const dim of ["rows", "columns"]) for (const o of at(dim).options) o.textContent = named(o.value, kept);
  filter.width.parentNode.firstChild.textContent = named("width", kept);
  at("said").textContent = row === column ? "rows and columns are the same key" :
    (over.length ? "A cell shows the best over " + over.join(" and ") + ". " : "")
    + (kept.length ? "Point at a cell for its learning curve, and what its network has learned. " + (show === "picture" ? KEY : "") : "No cell of this choice was run.");
  at("maps").replaceChildren();
  const plots = [];  // drawn once all of them have their place, and so their width
  for (const fractal of values.fractal) {
    const own = kept.filter(e => e.fractal === fractal);
    const names = axes.map(dim => named(dim, own));
    if (!own.length || row === column) continue;
    const best = new Map();
    for (const e of own) {
      const key = e[row] + "|" + e[column];
      if (!best.has(key) || best.get(key).acc < e.acc) best.set(key, e);
    }
    const cell = (y, x) => best.get(y + "|" + x);
    const mean = found => { const v = found.filter(Boolean).map(shown).filter(z => z != null);
      return v.length ? v.reduce((a, b) => a + b) / v.length : -9; };
    const ys = [...new Set(own.map(e => String(e[row])))].sort(order);
    const xs = [...new Set(own.map(e => String(e[column])))].sort(order);
    const high = new Map([...ys.map(y => ["y" + y, mean(xs.map(x => cell(y, x)))]), ...xs.map(x => ["x" + x, mean(ys.map(y => cell(y, x)))])]);
    if (at("sort").checked) ys.sort((a, b) => high.get("y" + b) - high.get("y" + a));
    if (at("sort-columns").checked) xs.sort((a, b) => high.get("x" + b) - high.get("x" + a));
    if (show === "picture") at("maps").append(gallery(fractal, names, ys, xs, cell));
    else plots.push(heatmap(fractal, names, ys, xs, cell, show));
  }
  for (const plot of plots) plot();
  scatter(kept);
  if (kept.length) tell(kept.reduce((a, b) => a.acc > b.acc ? a : b));
}
function heatmap(fractal, [row, column], ys, xs, cell, show) {
  const z = ys.map(y => xs.map(x => { const e = cell(y, x); return e ? shown(e) : null; }));
  const text = ys.map((y, i) => xs.map((x, j) => { const e = cell(y, x), v = z[i][j];
    if (!e || v == null) return "";
    const marks = show === "paper" ? "" : (e.whole ? "" : "*") + (e.differs ? "†" : "");
    const dark = show === "diff" ? v < -0.05 || v > 0.07 : v < 0.74;  // the cell, by the scales below
    const value = (show === "diff" && v > 0 ? "+" : "") + v.toFixed(show === "paper" && e.n ? 2 : 3) + marks;
    return `<span style="color:${dark ? "#fff" : "#000"}">${value}</span>`; }));
  const hover = ys.map(y => xs.map(x => { const e = cell(y, x); return e ? hovered(e) : ""; }));
  const scale = show === "diff" ? {colorscale: "RdBu", zmin: -0.1, zmax: 0.1} : {colorscale: "Viridis", zmin: 0.5, zmax: 1};
  const map = document.createElement("div");
  at("maps").append(map);
  return () => Plotly.newPlot(map, [{type: "heatmap", x: xs, y: ys, z, text, texttemplate: "%{text}", textfont: {size: 12}, hovertext: hover,
    hovertemplate: "%{hovertext}<extra></extra>", xgap: 2, ygap: 2, ...scale, colorbar: {thickness: 10}}],
    {title: {text: fractal, font: {size: 15}}, height: 110 + 38 * Math.max(ys.length, 3), margin: {l: 60, r: 10, t: 36, b: 44},
     xaxis: {type: "category", title: {text: column}}, yaxis: {type: "category", title: {text: row}, autorange: "reversed"}},
    {displayModeBar: false, responsive: true}).then(() => map.on("plotly_hover", event => {
      const p = event.points[0], e = cell(String(p.y), String(p.x)); if (e) tell(e); }));
}
function image(e) {
  const picture = document.createElement("img");
  picture.src = "data:image/png;base64," + DATA.pictures[e.run];
  picture.alt = "decision regions of " + describe(e).join("; ");
  return picture;
}
function gallery(fractal, [row, column], ys, xs, cell) {
  const part = document.createElement("div"), table = document.createElement("table"), head = table.createTHead().insertRow();
  table.className = "grid"; table.createCaption().textContent = fractal;
  head.insertCell().textContent = row + " \\ " + column;
  for (const x of xs) head.insertCell().textContent = x;
  for (const y of ys) {
    const line = table.insertRow();
    line.insertCell().textContent = y;
    for (const x of xs) {
      const e = cell(y, x), place = line.insertCell();
      if (!e) continue;
      place.onmouseenter = () => tell(e);
      if (DATA.pictures[e.run]) place.append(image(e));
      place.append(e.acc.toFixed(3) + (e.whole ? "" : "*"));
    }
  }
  part.className = "wide"; part.append(table);
  return part;
}
function scatter(kept) {
  const j = Number(at("level").value), shapes = {displayModeBar: false, responsive: true};
  const shade = ["#440154", "#3b528b", "#21918c", "#5ec962", "#d6b40a", "#b3261e"];
  const traces = (by, x) => values[by].map((v, i) => {
    const own = kept.filter(e => String(e[by]) === v && x(e) != null);
    return {type: "scatter", mode: "markers", name: letters(by + " " + v), x: own.map(x), y: own.map(e => e.acc), customdata: own,
      text: own.map(hovered), hovertemplate: "%{text}<extra></extra>",
      marker: {size: 7, color: shade[i % 6], symbol: own.map(e => e.whole ? "circle" : "circle-open")}};
  }).filter(t => t.x.length);
  const layout = (title, xaxis) => ({xaxis: {title: {text: title}, ...xaxis}, yaxis: {title: {text: "accuracy"}},
    height: 360, margin: {l: 60, r: 10, t: 10, b: 44}});
  Plotly.react("parameters", traces("depth", e => e.params), layout("parameters", {type: "log"}), shapes);
  const P = e => !e.differs && DATA.P[e.curve + " " + e.n] && j < e.n ? DATA.P[e.curve + " " + e.n][j] : null;
  const bound = {x: [0.5, 1], y: [0.5, 1], mode: "lines", name: "P(" + j + ")", line: {dash: "dash", color: "#555"}};
  Plotly.react("levels", [bound, ...traces("depth", P)], layout("P(" + j + ")", {}), shapes);
  for (const id of ["parameters", "levels"]) {
    at(id).removeAllListeners("plotly_hover");
    at(id).on("plotly_hover", event => { const e = event.points[0].customdata; if (e && e.run) tell(e); });
  }
}
const named = (dim, entries) => dim === "width" && entries.every(e => !e.n) ? "channels" : dim;  // of CNNs on images
function describe(e) {  // in lines
  const curve = e.n ? `curve ${e.curve}, ` : "", spread = e.spread == null ? "" : ` ± ${e.spread.toFixed(4)} over ${e.seeds} seeds`;
  const theirs = e.paper == null ? "" : `, the paper ${e.paper.toFixed(e.n ? 2 : 3)}`;
  return [`${e.fractal}, ${curve}depth ${e.depth}, ${named("width", [e])} ${e.width}`, `ours ${e.acc.toFixed(4)}${spread}${theirs}`,
    `lr ${e.chosen}, ${e.budget.toLocaleString("en")} steps` + (e.params ? `, ${e.params} parameters` : ""),
    ...(e.differs ? ["† " + e.differs] : [])];
}
const hovered = e => describe(e).map(letters).join("<br>");
function tell(e) {
  const [x, y] = DATA.curves[e.run] || [[], []];
  const lines = [{x, y, mode: x.length < 40 ? "lines+markers" : "lines", name: "test accuracy" + (e.seeds > 1 ? ", first seed" : "")}];
  if (e.paper != null && x.length)
    lines.push({x: [x[0], x.at(-1)], y: [e.paper, e.paper], mode: "lines", name: "the paper's best",
      line: {dash: "dash", color: "#888"}});
  at("described").textContent = describe(e).join("; ") + (x.length ? "" : " (no history here)");
  Plotly.react("curve", lines, {margin: {l: 60, r: 10, t: 30, b: 50}, legend: {orientation: "h", y: 1, yanchor: "bottom"}, xaxis: {title: {text: "step", standoff: 6}}, showlegend: true,
    yaxis: {title: {text: "test accuracy"}}}, {displayModeBar: false, responsive: true});
  at("command").textContent = e.command;
  at("learned").replaceChildren(...(DATA.pictures[e.run] ? [image(e), "After its last step. " + KEY] : ["no picture of it here"]));
}
begin();
