"use strict";
// Without this script the page is whole but for the browser of users. Text goes in by textContent only.

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

// ---- theme: the system's, or one that is chosen

(function theme() {
  const button = document.getElementById("theme");
  const choices = ["system", "light", "dark"];
  let chosen = 0;
  button.hidden = false;
  button.addEventListener("click", () => {
    chosen = (chosen + 1) % choices.length;
    button.textContent = "Theme: " + choices[chosen];
    if (chosen) document.documentElement.dataset.theme = choices[chosen];
    else delete document.documentElement.dataset.theme;
  });
})();

// ---- tabs: one metric at a time

for (const choice of document.querySelectorAll("[data-tabs]")) {
  const tabs = [...choice.children];
  if (tabs.length < 2) continue;
  const bar = make("div", { class: "tabs", role: "tablist", "aria-label": choice.dataset.tabs });
  const buttons = tabs.map((tab, place) => {
    tab.id = choice.parentNode.id + "-" + place;
    tab.setAttribute("role", "tabpanel");
    const button = make("button", { type: "button", role: "tab", "aria-controls": tab.id }, tab.dataset.label);
    button.addEventListener("click", () => show(place));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) show((place + step + tabs.length) % tabs.length).focus();
    });
    return button;
  });
  function show(place) {
    tabs.forEach((tab, i) => {
      tab.style.display = i === place ? "" : "none";
      buttons[i].setAttribute("aria-selected", String(i === place));
      buttons[i].tabIndex = i === place ? 0 : -1;
    });
    return buttons[place];
  }
  bar.append(...buttons);
  choice.prepend(bar);
  choice.classList.add("live");
  show(0);
}

// ---- tables: sorted by the number that a cell begins with, else by its text; what is missing goes last

function valueOf(cell) {
  const text = cell.textContent.trim();
  const number = parseFloat(text.replace(/,/g, "").replace(/^[<+]/, ""));
  if (Number.isFinite(number)) return text.startsWith("<") ? number - 1e-9 : number;
  return text === "-" || text === "" ? null : text;
}

for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  headings.forEach((heading, column) => {
    const button = make("button", { type: "button" });
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const first = column && !heading.textContent.includes("↓") && !/^p\b/.test(heading.textContent) ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = heading.getAttribute("aria-sort") === first ? other : first;
      headings.forEach((each) => each.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...body.rows].map((row) => [valueOf(row.cells[column]), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        if (typeof a === "number" && typeof b === "number") return sign * (a - b);
        return sign * String(a).localeCompare(String(b), undefined, { numeric: true });
      });
      body.append(...rows.map(([, row]) => row));
    });
  });
}

// ---- figures: what is pointed at, or reached with the keyboard, says what it is

(function notes() {
  const note = document.getElementById("note");
  function tell(event) {
    const node = event.target.closest && event.target.closest(".note");
    note.hidden = !node;
    if (!node) return;
    note.textContent = node.dataset.note;
    const box = node.getBoundingClientRect();
    const x = Math.min(Math.max(box.left + box.width / 2 - note.offsetWidth / 2, 8), innerWidth - note.offsetWidth - 8);
    const above = box.top - note.offsetHeight - 8;
    note.style.left = x + "px";
    note.style.top = (above > 4 ? above : box.bottom + 8) + "px";
  }
  for (const node of document.querySelectorAll(".note")) {
    node.setAttribute("tabindex", "0");
    node.setAttribute("role", "img");
    node.setAttribute("aria-label", node.dataset.note);
  }
  for (const name of ["pointerover", "focusin", "click"]) document.addEventListener(name, tell);
  document.addEventListener("focusout", () => { note.hidden = true; });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") note.hidden = true; });
  document.addEventListener("scroll", () => { note.hidden = true; }, { passive: true });
})();

// ---- commands can be copied

for (const button of document.querySelectorAll(".copy")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.parentNode.querySelector("code").textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

// ---- the browser of users: only the lines that are in sight exist

(function browser() {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.getElementById("browser");
  if (!root || !data.rows.length) return;
  const [USER, PLACE, HISTORY, EARLIER, TARGETS, GAINS, LISTS, VALUES] = [0, 1, 2, 3, 4, 5, 6, 7];
  const HEIGHT = 44;
  const find = (id) => document.getElementById(id);
  const list = find("list"), space = find("space"), view = find("window");
  const pick = { metric: find("metric"), system: find("system"), against: find("against"), order: find("order") };
  const lower = data.titles.map((title) => title.toLowerCase());
  let shown = [], chosen = 0;

  data.metrics.forEach((name, i) => {
    const arrow = { true: " ↑", false: " ↓" }[data.better[i]] || "";
    pick.metric.append(make("option", { value: i }, name + arrow));
  });
  for (const select of [pick.system, pick.against]) {
    data.systems.forEach((name, i) => select.append(make("option", { value: i }, name)));
  }
  const reference = Math.max(data.systems.indexOf(data.reference), 0);
  const best = data.systems.indexOf(data.best);
  pick.against.value = reference;
  pick.system.value = best >= 0 && best !== reference ? best : Math.min(reference ? 0 : 1, data.systems.length - 1);

  const score = (row, system, metric) => (row[VALUES][system] ? row[VALUES][system][metric] : null);
  const settings = () => [+pick.metric.value, +pick.system.value, +pick.against.value];
  function difference(row) {
    const [metric, system, against] = settings();
    const one = score(row, system, metric), two = score(row, against, metric);
    return one === null || two === null ? null : one - two;
  }
  const text = (value, sign) => (value === null ? "-" : (sign && value > 0 ? "+" : "") + value.toFixed(Math.abs(value) < 10 ? 3 : 1));

  function matches(row, words, items) {
    if (words === "" || row[USER].toLowerCase().includes(words)) return true;
    const has = (list) => list && list.some((item) => items.has(item));
    return has(row[HISTORY]) || has(row[TARGETS]) || row[LISTS].some(has);
  }

  function select() {
    const words = find("search").value.trim().toLowerCase();
    const items = new Set();
    if (words) lower.forEach((title, i) => { if (title.includes(words)) items.add(i); });
    const [metric, system] = settings();
    const sign = data.better[metric] === false ? -1 : 1;
    const rows = data.rows.filter((row) => matches(row, words, items)).map((row) => {
      const gain = difference(row), value = score(row, system, metric);
      const order = pick.order.value;
      const by = order === "value" ? value : gain;
      let key = by === null ? Infinity : { loss: sign * gain, gain: -sign * gain, size: -Math.abs(gain), value: -sign * value, user: 0 }[order];
      if (order === "user") key = 0;
      return [key, row];
    });
    const names = new Intl.Collator(undefined, { numeric: true });
    rows.sort(([a, one], [b, two]) => (a === b ? names.compare(one[USER], two[USER]) || one[PLACE] - two[PLACE] : a - b));
    shown = rows.map(([, row]) => row);
    chosen = 0;
    find("count").textContent = shown.length.toLocaleString("en") + (shown.length === 1 ? " row" : " rows");
    list.scrollTop = 0;
    space.style.height = shown.length * HEIGHT + "px";
    draw();
    detail();
  }

  function draw() {
    const first = Math.max(Math.floor(list.scrollTop / HEIGHT) - 4, 0);
    const last = Math.min(first + Math.ceil(list.clientHeight / HEIGHT) + 8, shown.length);
    const [metric, system, against] = settings();
    view.style.transform = "translateY(" + first * HEIGHT + "px)";
    view.replaceChildren(...shown.slice(first, last).map((row, i) => {
      const place = first + i, gain = difference(row);
      const better = gain === null || !gain || data.better[metric] === null ? "" : gain > 0 === data.better[metric] ? "gain" : "loss";
      const line = make("div", {
        class: "line", role: "option", id: "line-" + place, "aria-selected": String(place === chosen),
        "aria-posinset": place + 1, "aria-setsize": shown.length,
      },
        make("span", { class: "who" }, row[USER]),
        make("span", { class: "pair" }, text(score(row, against, metric)) + " → " + text(score(row, system, metric))),
        make("span", { class: "delta " + better }, text(gain, true)));
      line.addEventListener("click", () => choose(place));
      return line;
    }));
    if (shown.length) list.setAttribute("aria-activedescendant", "line-" + chosen);
    else list.removeAttribute("aria-activedescendant");
  }

  function choose(place) {
    chosen = Math.min(Math.max(place, 0), shown.length - 1);
    const top = chosen * HEIGHT;
    if (top < list.scrollTop) list.scrollTop = top;
    if (top + HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + HEIGHT - list.clientHeight;
    draw();
    detail();
  }

  function titled(item) {
    const words = find("search").value.trim().toLowerCase();
    const title = data.titles[item], at = words ? lower[item].indexOf(words) : -1;
    if (at < 0 || lower[item].length !== title.length) return [title];
    return [title.slice(0, at), make("mark", {}, title.slice(at, at + words.length)), title.slice(at + words.length)];
  }

  function chips(items, classOf) {
    return make("ol", { class: "items" }, ...items.map((item, i) => make("li", classOf(item, i), ...titled(item))));
  }

  function detail() {
    const row = shown[chosen], article = find("row");
    if (!row) return article.replaceChildren(make("p", {}, "No row matches."));
    const relevant = new Set(row[TARGETS].filter((_, i) => row[GAINS][i] > 0));
    const given = row[LISTS].map((items) => items || []);
    const found = new Set(given.flat().filter((item) => relevant.has(item)));
    const [metric, system, against] = settings();
    const order = [...new Set([against, system, ...data.systems.keys()])];
    const head = make("tr", {}, make("th", { scope: "col" }, "#"), ...order.map((i) => make("th", { scope: "col" },
      data.systems[i], make("br"), make("span", { class: "better" }, data.metrics[metric] + " " + text(score(row, i, metric))))));
    const body = make("tbody");
    for (let place = 0; place < Math.max(...given.map((items) => items.length)); place++) {
      body.append(make("tr", {}, make("th", { scope: "row" }, String(place + 1)), ...order.map((i) => {
        const items = given[i];
        if (place >= items.length) return make("td", {}, "");
        const item = items[place];
        if (item < 0) return make("td", { class: "invalid" }, "no item");
        const hit = relevant.has(item) && items.indexOf(item) === place;
        return make("td", { class: hit ? "hit" : null }, ...(hit ? ["✓ "] : []), ...titled(item));
      })));
    }
    const more = row[EARLIER] ? ", and " + row[EARLIER].toLocaleString("en") + " earlier" : "";
    article.replaceChildren(
      make("h3", {}, "User " + row[USER]),
      make("h4", {}, "Targets (" + row[TARGETS].length + "; dashed: not relevant; ✓ green: some system names it)"),
      chips(row[TARGETS], (item) => ({ class: found.has(item) ? "hit" : relevant.has(item) ? null : "faint" })),
      make("h4", {}, "Lists"),
      make("div", { class: "scroll", role: "region", "aria-label": "Lists", tabindex: "0" }, make("table", {}, make("thead", {}, head), body)),
      make("h4", {}, "History, newest first (" + row[HISTORY].length + more + ")"),
      chips([...row[HISTORY]].reverse(), () => ({})));
    article.scrollTop = 0;
  }

  let waiting = 0;
  list.addEventListener("scroll", () => {
    if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; draw(); });
  }, { passive: true });
  list.addEventListener("keydown", (event) => {
    const page = Math.floor(list.clientHeight / HEIGHT) - 1;
    const to = {
      ArrowDown: chosen + 1, ArrowUp: chosen - 1, PageDown: chosen + page, PageUp: chosen - page, Home: 0, End: shown.length - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(to);
  });
  let pause = 0;
  find("search").addEventListener("input", () => { clearTimeout(pause); pause = setTimeout(select, 120); });
  root.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  for (const each of Object.values(pick)) each.addEventListener("change", select);
  root.hidden = false;
  select();
})();
