"use strict";

const STYLES = ["terse", "verbose"];
const find = (name) => document.getElementById(name);
const [form, prompt, key, askButton, stopButton] = ["form", "prompt", "key", "ask", "stop"].map(find);
let running = null;

const seconds = (milliseconds) => `${(milliseconds / 1000).toFixed(1)} s`;

/** Yields [name, data] of each server-sent event in a response. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (held + value).split("\n\n");
    held = blocks.pop();
    for (const block of blocks) {
      const [, name, data] = block.match(/^event: (.*)\ndata: (.*)$/);
      yield [name, JSON.parse(data)];
    }
  }
}

/** One style's part of the page. */
class Panel {
  constructor(style) {
    this.style = style;
    const section = document.querySelector(`[data-style="${style}"]`);
    this.text = section.querySelector(".text");
    this.error = section.querySelector(".error");
    this.figures = Object.fromEntries(
      [...section.querySelectorAll("[data-figure]")].map((element) => [element.dataset.figure, element]),
    );
  }

  /** Shows the answer to a question as it is generated; returns a summary for screen readers. */
  async ask(question, signal) {
    const began = performance.now();
    this.text.textContent = this.error.textContent = "";
    for (const figure of Object.values(this.figures)) figure.textContent = "–";
    this.text.setAttribute("aria-busy", "true");
    const clock = setInterval(() => (this.figures.complete.textContent = seconds(performance.now() - began)), 100);
    try {
      return await this.show(await this.send(question, signal), began);
    } catch (error) {
      this.error.textContent = signal.aborted ? "Stopped." : error.message || "The server cannot be reached.";
      return `${this.style}: ${this.error.textContent}`;
    } finally {
      clearInterval(clock);
      this.text.setAttribute("aria-busy", "false");
    }
  }

  async send(question, signal) {
    const headers = { "Content-Type": "application/json" };
    if (key.value) headers.Authorization = `Bearer ${key.value}`;
    const body = JSON.stringify({ prompt: question, style: this.style, stream: true });
    const response = await fetch("/generate", { method: "POST", headers, body, signal });
    if (response.status === 401) find("access").open = true;
    if (!response.ok) throw new Error((await response.json()).detail);
    return response;
  }

  async show(response, began) {
    let first = true;
    for await (const [name, data] of events(response)) {
      if (name === "error") throw new Error(data.detail);
      if (name === "done") {
        this.figures.tokens.textContent = data.tokens;
        this.figures.complete.textContent = seconds(data.latency * 1000);
        return `${this.style}: ${data.tokens} tokens in ${seconds(data.latency * 1000)}`;
      }
      if (first) this.figures.first.textContent = seconds(performance.now() - began);
      first = false;
      this.text.append(data.text);
    }
    throw new Error("The connection ended before the answer did.");
  }
}

async function showService() {
  const line = find("service");
  try {
    const health = await (await fetch("/health")).json();
    line.textContent = health.status === "ok" ? `${health.model} is ready.` : `Not ready: ${health.reason}`;
    line.dataset.state = health.status === "ok" ? "ok" : "wrong";
    if (health.status === "loading") setTimeout(showService, 1000);
  } catch {
    line.textContent = "The server cannot be reached.";
    line.dataset.state = "wrong";
  }
}

/** Uses aria-disabled, since a disabled button would lose the focus. */
function showRunning(isRunning) {
  askButton.setAttribute("aria-disabled", isRunning);
  stopButton.setAttribute("aria-disabled", !isRunning);
}

const panels = STYLES.map((style) => new Panel(style));

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (running) return;
  running = new AbortController();
  showRunning(true);
  find("summary").textContent = "Asking in both styles.";
  const summaries = await Promise.all(panels.map((panel) => panel.ask(prompt.value, running.signal)));
  running = null;
  showRunning(false);
  find("summary").textContent = `${summaries.join(". ")}.`;
  showService();
});

stopButton.addEventListener("click", () => running?.abort());
prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
showService();
