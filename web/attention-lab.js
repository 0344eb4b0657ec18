// The lab for authors: numbers and no interface, or figures as elements.
//
//   import { Lab } from './attention-lab.js';
//   const lab = await Lab.create({ backend: 'auto' });
//   const run = await lab.prepare({ variant: 'full', causal: true, batch: 1, heads: 4, length: 1024, dim: 64 });
//   run.write({ q, k, v });
//   await run.execute();
//   const { out } = await run.read(['out']);
//
// Everything runs where it is called, on the page or in a worker; on the CPU back end `execute` holds that thread until it
// is done, so call it from a worker there.
//
// Loading this module also defines the element <attention-lab>, see element.js.
import { api_open } from './attention_lab.js';
import { AttentionLab, openModule } from './element.js';

export { AttentionLab };

/// What every call throws. `code` is `invalid` (the request makes no sense), `refused` (this method or device can't serve
/// it), `no_adapter`, `lost`, `out_of_memory` or `internal`; `nearest` the nearest request that would do, in words, or null.
export class LabError extends Error {
  constructor({ code, message, nearest = null }) {
    super(message);
    this.name = 'LabError';
    this.code = code;
    this.nearest = nearest;
  }
}

/// A device, or the lab's own code on the processor.
export class Lab {
  #lab;
  #info;

  constructor(lab) {
    this.#lab = lab;
    this.#info = JSON.parse(lab.info());
  }

  /// `backend`: `auto` (a GPU where there is a real one, else the CPU), `gpu` or `cpu`.
  static async create({ backend = 'auto' } = {}) {
    if (!['auto', 'gpu', 'cpu'].includes(backend)) {
      throw new LabError({ code: 'invalid', message: `there is no backend \`${backend}\`; there are auto, gpu, cpu` });
    }
    await openModule();
    return new Lab(await calling(() => api_open(backend)));
  }

  /// `backend`, `adapter` (name, driver, limits, features), `notice`, `schema`, `commit`.
  get info() {
    return this.#info;
  }

  /// Every variant with its parameters and tensors.
  variants() {
    return JSON.parse(this.#lab.variants());
  }

  /// Compiles and allocates one variant: `{ variant, params, causal, batch, heads, length, keys, dim, backward, padding,
  /// seed, tensors }`. Extra tensors are drawn from the seed; `write` replaces them. Those that what runs is built from
  /// must be there before, in `tensors`: `{ variant: 'custom', tensors: { mask } }`, a typed array of 1 and 0 of the shape
  /// [N, M], [H, N, M] or [B, H, N, M].
  async prepare(request) {
    // A typed array as JSON would be an object.
    const plain = (_, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
    return new Run(await calling(() => this.#lab.prepare(JSON.stringify(request, plain))));
  }

  /// A single op: `matmul` `{ m, n, k, batch, trans_a, trans_b }` reads a and b and gives c; `softmax` `{ rows, cols }`
  /// reads x and gives y; `layernorm` `{ rows, cols, epsilon }` reads x, gain and bias and gives y.
  async prepareOp(name, sizes) {
    return new Run(await calling(() => this.#lab.prepare_op(name, JSON.stringify(sizes))));
  }

  /// A training run at its beginning, from a configuration as in `assets/runs/`: `{ task: { id: 'copy' }, model: { layers: 2,
  /// d_model: 64, heads: 4, attention: [{ variant: 'full' }] }, optimiser: { rate: 0.002 }, batch: 32, steps: 400 }`. Only
  /// the task must be given.
  async prepareTraining(config) {
    return new Training(await calling(() => this.#lab.prepare_training(JSON.stringify(config))));
  }

  /// Races the kernels of every op of a run that has several, and has what is prepared from then on use the fastest. Takes
  /// what an earlier call gave, and gives what is known now (`classes`: choice and figures by shape class), as plain data to
  /// be kept.
  async tune(run, known = null) {
    return JSON.parse(await calling(() => this.#lab.tune(run.inner, JSON.stringify(known))));
  }

  /// Resolves when everything submitted so far is done.
  async wait() {
    await calling(() => this.#lab.wait());
  }

  free() {
    this.#lab.free();
  }
}

/// Something prepared. `bytes`, `bytes_by_category`, `flops`, `stages`, `inputs` and `outputs` are known before it runs.
export class Run {
  #run;

  constructor(run) {
    this.#run = run;
    Object.assign(this, JSON.parse(run.facts()));
  }

  /// For `Lab.tune`.
  get inner() {
    return this.#run;
  }

  /// Writes inputs by name, a Float32Array each.
  write(tensors) {
    for (const [name, values] of Object.entries(tensors)) {
      if (!(values instanceof Float32Array)) {
        throw new LabError({ code: 'invalid', message: `\`${name}\` must be a Float32Array` });
      }
      calling(() => this.#run.write(name, values));
    }
  }

  /// Queues one run without waiting for it; `lab.wait()` or `read` does.
  submit() {
    calling(() => this.#run.submit());
  }

  /// Runs once; resolves when it is done.
  async execute() {
    await calling(() => this.#run.execute());
  }

  /// Outputs of the last run by name; all of them where no names are given.
  async read(names = this.outputs.map((tensor) => tensor.name)) {
    const read = {};
    for (const name of names) read[name] = await calling(() => this.#run.read(name));
    return read;
  }

  /// Time of one run in milliseconds: `{ median, min, max, spread, repeats, how }`.
  async time({ spans = 7 } = {}) {
    return JSON.parse(await calling(() => this.#run.time(spans)));
  }

  /// Gives its memory back; it can't be used any more.
  free() {
    this.#run.free();
  }
}

/// A training run. `config` (with what the task decides), `weights`, `flops` of a step, `bytes` and `chance` are known before
/// the first step.
export class Training {
  #run;

  constructor(run) {
    this.#run = run;
    Object.assign(this, JSON.parse(run.facts()));
  }

  /// So many steps; what the last one gave: `{ step, loss, norm, rate }`.
  async step(count = 1) {
    return JSON.parse(await calling(() => this.#run.step(count)));
  }

  /// How well it does on sequences kept from training: `{ step, loss, score }`.
  async evaluate() {
    return JSON.parse(await calling(() => this.#run.evaluate()));
  }

  /// The run as the bytes of a `.safetensors` file with its configuration.
  async save() {
    return calling(() => this.#run.save());
  }

  /// Gives its memory back; it can't be used any more.
  free() {
    this.#run.free();
  }
}

/// Calls into the module, whose errors are JSON texts of a LabError.
function calling(call) {
  const understood = (error) => {
    if (typeof error !== 'string') return error;
    try {
      return new LabError(JSON.parse(error));
    } catch {
      return new LabError({ code: 'internal', message: error });
    }
  };
  let result;
  try {
    result = call();
  } catch (error) {
    throw understood(error);
  }
  return result instanceof Promise ? result.catch((error) => Promise.reject(understood(error))) : result;
}
