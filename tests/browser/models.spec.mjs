// Models that others made: opened from disk, shown, refused, cancelled.
import { mkdtempSync, openSync, readFileSync, ftruncateSync, writeSync, closeSync, rmSync, copyFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, expect } from './lab.mjs';

const fixture = (model, file) => new URL(`../fixtures/pretrained/${model}/${file}`, import.meta.url).pathname;
const files = (model) => ['model.safetensors', 'config.json', 'tokenizer.json'].map((file) => fixture(model, file));
const TEXT = "The gardener's daughter reads";
const QUERY = `text=${encodeURIComponent(TEXT)}&theme=light`;

/** A tensor of what the reference implementation said, as numbers. */
function reference(model, name) {
  const bytes = readFileSync(fixture(model, 'reference.safetensors'));
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  const { shape, data_offsets: [from, to] } = JSON.parse(bytes.subarray(8, start))[name];
  return { shape, at: (i) => bytes.readFloatLE(start + from + 4 * i), count: (to - from) / 4 };
}

async function drawn(page) {
  await expect(page.locator('#plate-0')).toHaveAttribute('data-drawn', 'exact', { timeout: 30_000 });
}

const weightsSaid = (page) => page.locator('#weights-said');

test('every layer and head of a model from disk is shown on the text, as the reference has it', async ({ lab }) => {
  const weights = reference('gpt2', 'weights.0');
  const [layers, heads, n] = weights.shape;
  const page = await lab.open(`?v=1&variant=full&n=${n}&${QUERY}`);
  await drawn(page);
  await page.locator('#open-model').setInputFiles(files('gpt2'));
  await expect(page.locator('#opened')).toContainText('GPT-2, 2 layers with 2 heads each');
  await expect(weightsSaid(page)).toContainText('opened model');
  await expect(page.locator('#layer-picker option')).toHaveCount(layers);
  await expect(page.locator('#head-picker option')).toHaveCount(heads);
  await expect(page.locator('#weights')).toHaveValue('opened');
  const canvas = page.locator('#plate-0 canvas');
  await canvas.scrollIntoViewIfNeeded();
  const box = await canvas.boundingBox();
  for (const [layer, head] of [[0, 0], [0, 1], [1, 0], [1, 1]]) {
    await page.locator('#layer-picker select').selectOption({ value: String(layer) });
    await page.locator('#head-picker select').selectOption({ value: String(head) });
    for (const [query, key] of [[n - 1, 2], [6, 6]]) {
      await page.mouse.move(box.x + ((key + 0.5) / n) * box.width, box.y + ((query + 0.5) / n) * box.height);
      const want = weights.at(((layer * heads + head) * n + query) * n + key);
      const told = async () => Number(/weight ([\d.e-]+)/.exec(await page.locator('#cell-0').textContent())?.[1] ?? NaN);
      await expect.poll(async () => Math.abs((await told()) - want) <= 0.006 * want + 1e-6, { message: `${layer} ${head} ${query} ${key}` }).toBe(true);
      // The labels are the model's own tokens: a point stands for a space.
      if (query === 6) await expect(page.locator('#readout .where')).toContainText("'s");
    }
  }
  await expect(page.locator('#expected')).toContainText('the model expects');
});

test('another attention in an opened model is judged on the text', async ({ lab }) => {
  const page = await lab.open(`?v=1&variant=full,sliding_window&sliding_window.window=2&n=13&${QUERY}`);
  await page.locator('#open-model').setInputFiles(files('gpt2'));
  await expect(page.locator('#swap')).toContainText(/\d → \d/);
  await page.locator('button.by-layer').click();
  await expect(page.locator('table.by-layer tbody tr')).toHaveText([/^layer 1\s*\d+\.\d+/, /^layer 2\s*\d+\.\d+/]);
  // Another window has not been asked about yet.
  await page.locator('[id="sliding_window.window"]').fill('3');
  await expect(page.locator('button.by-layer')).toBeEnabled();
  await page.locator('#opened button').click();
  await expect(page.locator('#opened')).toHaveCount(0);
  await expect(page.locator('#weights')).toHaveValue('trained');
});

/** A model's file without its head, as sentence models have theirs. */
function headless(model) {
  const bytes = readFileSync(fixture(model, 'model.safetensors'));
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  const kept = {};
  const parts = [];
  let end = 0;
  for (const [name, tensor] of Object.entries(JSON.parse(bytes.subarray(8, start)))) {
    if (name.startsWith('cls.') || name === '__metadata__') continue;
    const part = bytes.subarray(...tensor.data_offsets.map((at) => start + at));
    kept[name] = { ...tensor, data_offsets: [end, (end += part.length)] };
    parts.push(part);
  }
  const header = Buffer.from(JSON.stringify(kept));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([size, header, ...parts]);
}

test('a model that says no words is compared by the vectors that it makes', async ({ lab }) => {
  const page = await lab.open(`?v=1&variant=full,sliding_window&sliding_window.window=1&n=13&${QUERY}`);
  const small = ['config.json', 'tokenizer.json'].map((name) => ({ name, mimeType: '', buffer: readFileSync(fixture('bert', name)) }));
  await page.locator('#open-model').setInputFiles([{ name: 'model.safetensors', mimeType: '', buffer: headless('bert') }, ...small]);
  await expect(page.locator('#swap caption')).toContainText('cosine with that of full attention');
  const row = page.locator('#swap tbody tr');
  await expect(row).toHaveText(/^run with Sliding window\s*-?0\.\d+/, { useInnerText: true });
  await expect(page.locator('.fine-tune')).toBeHidden();
  await page.locator('button.by-layer').click();
  await expect(page.locator('table.by-layer tbody tr')).toHaveText([/^layer 1\s*-?\d\.\d+/, /^layer 2\s*-?\d\.\d+/]);
  await expect(page.locator('table.by-layer caption')).toContainText('cosine');
});

test('texts of many scripts become as many tokens as the reference makes of them', async ({ lab }) => {
  const page = await lab.open('?v=1&variant=full&n=16&text=a');
  await drawn(page);
  for (const model of ['gpt2', 'bert', 'distilbert']) {
    await page.locator('#open-model').setInputFiles(files(model));
    await expect(page.locator('#opened')).toContainText({ gpt2: 'GPT-2', bert: 'BERT', distilbert: 'DistilBERT' }[model]);
    for (const { text, ids } of JSON.parse(readFileSync(fixture(model, 'texts.json'), 'utf8'))) {
      // Blank texts stand for the lab's own.
      if (!text.trim()) continue;
      await page.locator('#text').evaluate((area, text) => {
        area.value = text;
        area.dispatchEvent(new Event('input', { bubbles: true }));
      }, text);
      await expect(page.locator('#text-notice'), text).toContainText(new RegExp(`\\b${ids.length} tokens`));
    }
  }
});

test('files dropped on the page are opened', async ({ lab }) => {
  const page = await lab.open(`?v=1&variant=full&n=12&${QUERY}`);
  await drawn(page);
  const dropped = files('bert').map((path) => [path.split('/').at(-1), readFileSync(path).toString('base64')]);
  await page.evaluate((dropped) => {
    const data = new DataTransfer();
    for (const [name, text] of dropped) data.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name));
    document.querySelector('#plate-0').dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));
  }, dropped);
  await expect(page.locator('#opened')).toContainText('BERT, 2 layers with 3 heads each');
  await expect(page.locator('#causal')).not.toBeChecked();
});

test('a broken model is refused by name, and the page goes on', async ({ lab }) => {
  const page = await lab.open(`?v=1&variant=full&n=16&${QUERY}`);
  await drawn(page);
  const refused = page.locator('#not-opened');
  const open = (names) => page.locator('#open-model').setInputFiles(names);
  const given = (name, text) => ({ name, mimeType: 'application/octet-stream', buffer: Buffer.from(text) });
  const [model, config, tokenizer] = files('gpt2');
  await open([config, tokenizer]);
  await expect(refused).toContainText('there is no .safetensors file');
  await open([model, config]);
  await expect(refused).toContainText('tokenizer.json is missing');
  await open([given('pytorch_model.bin', 'PK'), given('config.json', '{}')]);
  await expect(refused).toContainText('pytorch_model.bin: weights in this format are not read');
  const whole = readFileSync(model);
  const lying = Buffer.from(whole);
  lying.writeBigUInt64LE(1n << 60n, 0);
  const around = [given('config.json', readFileSync(config)), given('tokenizer.json', readFileSync(tokenizer))];
  await open([given('model.safetensors', lying), ...around]);
  await expect(refused).toContainText('says that its header has 1152921504606846976 bytes');
  const nan = Buffer.from(whole);
  nan.writeFloatLE(NaN, nan.length - 4);
  await open([given('model.safetensors', nan), ...around]);
  await expect(refused).toContainText('holds numbers that are not finite');
  await expect(page.locator('#opened')).toHaveCount(0);
  await page.locator('#length-exact').fill('17');
  await page.locator('#length-exact').blur();
  await expect(page.locator('.state-line, #state-line').first()).toContainText('17');
  await drawn(page);
  await open(files('gpt2'));
  await expect(page.locator('#opened')).toContainText('GPT-2');
  await expect(refused).toBeEmpty();
});

test('a link to an opened model says that none is open', async ({ lab }) => {
  const page = await lab.open(`?v=1&variant=full&n=16&weights=opened&${QUERY}`);
  await drawn(page);
  await expect(weightsSaid(page)).toContainText('No model is open here');
});

test('reading a model can be cancelled', async ({ lab }) => {
  // A GPT-2 of a third of a gigabyte, all zeros: a file with a hole takes no room on disk.
  const folder = mkdtempSync(join(tmpdir(), 'attention-lab-model-'));
  try {
    const [d, words] = [1024, 80_000];
    const tensors = { 'wte.weight': [words, d], 'wpe.weight': [64, d], 'ln_f.weight': [d], 'ln_f.bias': [d] };
    for (const norm of ['ln_1', 'ln_2']) for (const part of ['weight', 'bias']) tensors[`h.0.${norm}.${part}`] = [d];
    for (const [part, from, to] of [['attn.c_attn', d, 3 * d], ['attn.c_proj', d, d], ['mlp.c_fc', d, 4 * d], ['mlp.c_proj', 4 * d, d]]) {
      Object.assign(tensors, { [`h.0.${part}.weight`]: [from, to], [`h.0.${part}.bias`]: [to] });
    }
    let end = 0;
    const header = {};
    for (const [name, shape] of Object.entries(tensors)) {
      const bytes = 4 * shape.reduce((a, b) => a * b);
      header[name] = { dtype: 'F32', shape, data_offsets: [end, end + bytes] };
      end += bytes;
    }
    const text = Buffer.from(JSON.stringify(header));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.length));
    const path = join(folder, 'model.safetensors');
    const file = openSync(path, 'w');
    writeSync(file, Buffer.concat([length, text]));
    ftruncateSync(file, 8 + text.length + end);
    closeSync(file);
    copyFileSync(fixture('gpt2', 'tokenizer.json'), join(folder, 'tokenizer.json'));

    const page = await lab.open(`?v=1&variant=full&n=16&${QUERY}`);
    await drawn(page);
    // Pressed in the page itself, as soon as the button is there.
    await page.evaluate(() => {
      const watching = new MutationObserver(() => {
        const button = document.querySelector('#opening button');
        if (!button) return;
        watching.disconnect();
        globalThis.pressed = true;
        button.click();
      });
      watching.observe(document.body, { childList: true, subtree: true });
    });
    await page.locator('#open-model').setInputFiles([path, join(folder, 'tokenizer.json')]);
    await expect.poll(() => page.evaluate(() => globalThis.pressed === true)).toBe(true);
    await expect(page.locator('#opening')).toHaveCount(0);
    await expect(page.locator('#opened')).toHaveCount(0);
    await expect(page.locator('#not-opened')).toBeEmpty();
    await page.locator('#open-model').setInputFiles(files('distilbert'));
    await expect(page.locator('#opened')).toContainText('DistilBERT');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
