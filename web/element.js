// The custom element: one figure of the lab, without a frame.
//
//   <script type="module" src="https://…/attention-lab.js"></script>
//   <attention-lab variant="longformer" n="1024" view="weights"></attention-lab>
//
// Attributes are the keys of a permalink and of an embed; changing one changes the figure. What an embed posts to its parent,
// the element dispatches as events: `ready`, `height`, `state`, `result`, `error`, each with a `detail`.
//
// The figure is drawn in a shadow root of this page rather than in an iframe: so all elements of a page use one copy of the
// module, one worker and one device, and canvases never cross from one process to another. `embed.html` is for pages that
// would rather keep it apart. In a page of another site the lab's server must allow it by `Access-Control-Allow-Origin`, and
// the page's own policy, if it has one, must allow `blob:` workers and `'wasm-unsafe-eval'`.
import init, { figure_open } from './attention_lab.js';
import './host.js';

let opened;

/// The wasm module, once for everything on this page.
export const openModule = () => (opened ??= init());

/// Keys that say how much of the lab there is; a figure is built anew when one changes.
const FRAME = new Set(['show', 'hide', 'lock', 'caption', 'run', 'motion', 'gpu']);
/// Attributes that any element may have; every other one is a key, so that a misspelt one is told.
const ANY = /^(id|class|style|slot|part|title|dir|hidden|inert|tabindex|role|is|nonce|(aria-|data-|on).*)$/;
const STYLES = ['base', 'shell', 'attention', 'speed', 'embed'];
/// A figure starts when it is this near to being seen.
const NEAR = '400px';

export class AttentionLab extends (globalThis.HTMLElement ?? class {}) {
  #figure = null;
  /// What is to be said to the figure once it is there.
  #waiting = [];
  /// Counts what was opened and closed, so that an opening that has been overtaken gives up.
  #turn = 0;
  #opening = false;
  #running = false;
  #near = null;
  #changes;
  #styled;

  constructor() {
    super();
    const shadow = this.attachShadow({ mode: 'open' });
    // A height until there is one, so that elements far below are not all near.
    shadow.innerHTML = '<style>:host { display: block; min-block-size: 4rem } :host([hidden]) { display: none }</style>';
    this.#changes = new MutationObserver((records) => this.#changed(new Set(records.map((record) => record.attributeName))));
  }

  connectedCallback() {
    this.#changes.observe(this, { attributes: true });
    if (this.#figure || this.#opening) return;
    this.#near = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this.#open(), {
      rootMargin: NEAR,
    });
    this.#near.observe(this);
  }

  disconnectedCallback() {
    // An element that is only moved is connected again at once, and goes on.
    queueMicrotask(() => {
      if (this.isConnected) return;
      this.#changes.disconnect();
      this.#near?.disconnect();
      this.#close();
    });
  }

  /// The state as a permalink's query.
  get query() {
    return this.#figure?.query() ?? this.#attributes().toString();
  }

  /// Lays keys over the state; `null` gives a key its default. `{ n: 256, causal: true }`
  set(state) {
    const rest = {};
    for (const [key, value] of Object.entries(state)) {
      if (!FRAME.has(key)) rest[key] = value;
      else if (value === null) this.removeAttribute(key);
      else this.setAttribute(key, value);
    }
    if (Object.keys(rest).length) this.#say({ type: 'set', state: rest });
  }

  /// Starts it, or goes on after a pause.
  run() {
    this.#say({ type: 'run' });
    this.#open();
  }

  /// Stops what is being measured, and measures nothing until `run`.
  pause() {
    this.#say({ type: 'pause' });
  }

  /// Resolves with what was measured, as a result file.
  export() {
    const told = new Promise((resolve) => this.addEventListener('result', (event) => resolve(event.detail.result), { once: true }));
    this.#say({ type: 'export' });
    this.#open();
    return told;
  }

  #say(message) {
    if (this.#figure) this.#figure.hear(JSON.stringify(message));
    else this.#waiting.push(message);
  }

  #attributes() {
    const params = new URLSearchParams();
    for (const { name, value } of this.attributes) if (!ANY.test(name)) params.set(name, value);
    return params;
  }

  async #open(state = this.#attributes()) {
    if (this.#figure || this.#opening) return;
    this.#opening = true;
    this.#near?.disconnect();
    const turn = ++this.#turn;
    try {
      await Promise.all([openModule(), (this.#styled ??= this.#style())]);
      if (turn !== this.#turn) return;
      const root = document.createElement('div');
      root.className = 'embedded';
      this.shadowRoot.append(root);
      this.#figure = figure_open(root, state.toString(), (json) => this.#heard(JSON.parse(json)));
      for (const message of this.#waiting.splice(0)) this.#say(message);
    } catch (error) {
      this.#heard({ type: 'error', message: `this figure could not start: ${error}` });
    } finally {
      if (turn === this.#turn) this.#opening = false;
    }
  }

  #close() {
    this.#turn += 1;
    this.#opening = false;
    this.#figure?.free();
    this.#figure = null;
    this.#running = false;
    this.shadowRoot.querySelector('.embedded')?.remove();
  }

  /// Without its styles a figure would jump, so it waits for them.
  #style() {
    const links = STYLES.map((name) => {
      const link = document.createElement('link');
      link.rel = 'stylesheet';
      link.href = new URL(`./styles/${name}.css`, import.meta.url).href;
      return link;
    });
    const there = links.map((link) => new Promise((resolve) => (link.onload = link.onerror = resolve)));
    this.shadowRoot.append(...links);
    return Promise.all(there);
  }

  #changed(names) {
    // Before it is open, opening reads the attributes.
    if (!this.#figure && !this.#opening) return;
    const keys = [...names].filter((name) => !ANY.test(name));
    if (this.#opening || keys.some((key) => FRAME.has(key))) {
      const state = new URLSearchParams(this.#figure?.query() ?? '');
      const attributes = this.#attributes();
      for (const key of keys) state.delete(key);
      for (const [key, value] of attributes) if (FRAME.has(key) || keys.includes(key) || !this.#figure) state.set(key, value);
      const goesOn = this.#running && !keys.includes('run');
      this.#close();
      if (goesOn) this.#waiting.unshift({ type: 'run' });
      this.#open(state);
    } else if (keys.length) {
      this.#say({ type: 'set', state: Object.fromEntries(keys.map((key) => [key, this.getAttribute(key)])) });
    }
  }

  #heard({ type, source, ...detail }) {
    if (type === 'ready') this.#running = true;
    // The figure is at work while it speaks, and who hears it may want to take it away.
    queueMicrotask(() => this.dispatchEvent(new CustomEvent(type, { detail })));
  }
}

if (globalThis.customElements && !customElements.get('attention-lab')) customElements.define('attention-lab', AttentionLab);
