"use strict";
// Text of the input never becomes markup: the template has escaped it, and nothing here writes HTML.
(() => {
  const { charts, tracks, frames } = JSON.parse(document.getElementById("plotted").textContent);
  const calls = ["virus", "others", "ambiguous", "none"];
  const settings = { displayModeBar: false, responsive: true };

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const colourOf = (meta) => colour({ NA: "none", stage: "others" }[meta] || meta);

  const themed = (layout) => {
    const axis = (given) => ({ gridcolor: colour("line"), zerolinecolor: colour("line"), automargin: true, ...given });
    const axes = Object.fromEntries(Object.entries(layout).filter(([key]) => key.includes("axis")).map(([key, given]) => [key, axis(given)]));
    const shapes = (layout.shapes || []).map((shape) => ({ ...shape, line: { ...shape.line, color: colour("soft") } }));
    return {
      font: { color: colour("ink"), family: "system-ui, sans-serif", size: 13 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { t: 30, r: 12, b: 44, l: 56 },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }, bargap: 0.08,
      hoverlabel: { bgcolor: colour("panel"), bordercolor: colour("line"), font: { color: colour("ink") } },
      ...layout, ...axes, shapes,
    };
  };

  const drawChart = (id) => {
    const { data, layout } = charts[id];
    const traces = data.map((trace) => ({
      ...trace, marker: { color: colourOf(trace.meta) },
      ...(trace.type === "scatter" ? { line: { color: colourOf(trace.meta), width: 1.5 } } : {}),
    }));
    Plotly.react(id, traces, themed(layout), settings);
  };

  const framesText = (track, index) =>
    frames.map((frame, row) => [frame, track.frames[row][index]]).filter(([, score]) => score !== null)
      .map(([frame, score]) => `${frame} ${score.toFixed(4)}`).join(", ");

  const drawTrack = () => {
    const track = tracks[Number(document.getElementById("track-choice").value)];
    const traces = calls.map((call, number) => {
      const rows = [...track.call.keys()].filter((index) => track.call[index] === number);
      return {
        type: "bar", name: ["viral", "not viral", "undecided", "no call"][number], marker: { color: colour(call) }, opacity: 0.8,
        x: rows.map((index) => (track.start[index] + track.end[index]) / 2),
        y: rows.map((index) => track.score[index] ?? 0.015),
        width: rows.map((index) => track.end[index] - track.start[index]),
        customdata: rows.map((index) => [
          (track.start[index] + 1).toLocaleString("en"), track.end[index].toLocaleString("en"),
          framesText(track, index) || "no open frame",
        ]),
        hovertemplate: "%{customdata[0]}–%{customdata[1]} nt<br>%{customdata[2]}<extra></extra>",
      };
    }).filter((trace) => trace.x.length);
    const layout = {
      barmode: "overlay", xaxis: { title: { text: "position, nt" }, rangemode: "tozero", tickformat: ",d" },
      yaxis: { title: { text: "virus score" }, range: [0, 1.02] }, shapes: charts["chunk-scores"].layout.shapes.map(
        (line) => ({ ...line, x0: 0, x1: 1, xref: "paper", yref: "y", y0: line.x0, y1: line.x0 })),
    };
    Plotly.react("track", traces, themed(layout), settings);
  };

  // A chart is drawn when it comes near the window, so that the page opens at once; for paper all are.
  const drawn = new Set();
  const draw = (id) => {
    drawn.add(id);
    if (id === "track") drawTrack(); else drawChart(id);
  };
  const places = [...document.querySelectorAll(".chart")];
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting && !drawn.has(target.id)) draw(target.id);
    }
  }, { rootMargin: "300px" });
  places.forEach((place) => near.observe(place));
  if (tracks.length) document.getElementById("track-choice").addEventListener("change", drawTrack);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach(draw));
  matchMedia("print").addEventListener("change", () => places.forEach(({ id }) => draw(id)));

  const table = document.getElementById("top");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const filter = document.getElementById("filter");
  const least = document.getElementById("least");
  const shown = document.getElementById("shown");

  const applyFilter = () => {
    const words = filter.value.toLowerCase();
    let count = 0;
    for (const row of rows) {
      const text = `${row.cells[1].textContent}\t${row.cells[8].textContent}`.toLowerCase();
      const visible = text.includes(words) && Number(row.cells[6].textContent) >= Number(least.value);
      row.hidden = !visible;
      count += visible;
    }
    shown.textContent = `${count.toLocaleString("en")} of ${rows.length.toLocaleString("en")} shown`;
  };
  filter.addEventListener("input", applyFilter);
  least.addEventListener("input", applyFilter);
  applyFilter();

  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = header.querySelector("button");
    button.addEventListener("click", () => {
      const numeric = button.dataset.kind === "number";
      const now = header.getAttribute("aria-sort");
      const direction = now === "none" ? (numeric ? "descending" : "ascending") : now === "descending" ? "ascending" : "descending";
      headers.forEach((other) => other.setAttribute("aria-sort", "none"));
      header.setAttribute("aria-sort", direction);
      const key = (row) => (numeric ? Number(row.cells[column].textContent) : row.cells[column].textContent);
      const compare = (a, b) => (numeric ? key(a) - key(b) : key(a).localeCompare(key(b), "en", { numeric: true }));
      body.append(...rows.sort((a, b) => (direction === "ascending" ? compare(a, b) : compare(b, a))));
    });
  });
})();
