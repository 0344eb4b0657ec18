// The sheet of a method, the refusal with its picture, the small pictures, and the way past the gallery.
import { test, expect } from './lab.mjs';

test('the sheet says what a method is, with its formulas and the shaders that it runs', async ({ lab }) => {
  const page = await lab.open('?v=1&variant=nystromformer&n=64&view=weights');
  await expect(page.locator('#plate-0')).toHaveAttribute('data-drawn', 'exact', { timeout: 60_000 });
  await page.locator('#about-0').click();
  const sheet = page.locator('#sheet');
  await expect(sheet).toBeVisible();
  await expect(sheet.locator('.paper a')).toHaveAttribute('href', 'https://arxiv.org/abs/2102.03902');
  await expect(sheet.locator('[data-badge=not_causal]')).toBeVisible();
  await expect(sheet.locator('[data-badge=any_length]')).toBeVisible();
  const formulas = sheet.locator('#sheet-maths math');
  await expect(formulas).toHaveCount(3);
  for (const box of await formulas.evaluateAll((all) => all.map((one) => one.getBoundingClientRect().height))) {
    expect(box).toBeGreaterThan(12);
  }
  const shaders = sheet.locator('#sheet-shaders > li');
  // They are told once the plate stands.
  await expect.poll(() => shaders.count()).toBeGreaterThan(2);
  // Fused attention is written for the head dimension at hand: a generated kernel is among them, and each can be read.
  const texts = await sheet.locator('#sheet-shaders pre').allTextContents();
  expect(texts.every((text) => text.includes('@compute') && text.includes('fn '))).toBe(true);
  await shaders.first().locator('summary').click();
  await expect(shaders.first().locator('pre')).toBeVisible();
  await page.keyboard.press('Escape');
  await expect(sheet).toBeHidden();
  // It opens again, also after Escape.
  await page.locator('#about-0').click();
  await expect(sheet).toBeVisible();
  await page.locator('#sheet-close').click();
  await expect(sheet).toBeHidden();
});

test('a method without a causal form is refused with a picture of the leak', async ({ lab }) => {
  const page = await lab.open('?v=1&variant=linformer&n=64&causal=1');
  const leak = page.locator('#plate-0 svg.leak');
  await expect(leak).toBeVisible();
  await expect(leak.locator('.way')).toHaveAttribute('d', /^M/);
  await page.locator('#banner-refused button').first().click();
  await expect(leak).toHaveCount(0);
});

test('every method has a picture of its own', async ({ lab }) => {
  const page = await lab.open('?v=1&n=64');
  const pictures = page.locator('.gallery svg.thumbnail');
  await expect.poll(() => pictures.count()).toBeGreaterThan(25);
  const count = await pictures.count();
  const drawn = () => pictures.evaluateAll((all) => all.map((one) => [...one.querySelectorAll('path')].map((path) => path.getAttribute('d')).join()));
  await expect.poll(async () => (await drawn()).filter((path) => path.length > 20).length, { timeout: 60_000 }).toBe(count);
  expect(new Set(await drawn()).size).toBe(count);
});

test('the first stop of the keyboard leads past the gallery to the plate', async ({ lab }) => {
  const page = await lab.open('?v=1&n=64');
  await expect(page.locator('#plate-0')).toHaveAttribute('data-drawn', 'exact', { timeout: 60_000 });
  await page.keyboard.press('Tab');
  await expect(page.locator('.skip')).toBeFocused();
  await page.keyboard.press('Enter');
  await expect(page.locator('#matrix-0')).toBeFocused();
});

test('a zero that follows the length shows the value in use', async ({ lab }) => {
  const page = await lab.open('?v=1&variant=sparse_strided&n=256');
  await expect(page.locator('#state-line')).toContainText('stride 16');
});

test.describe('on a narrow screen', () => {
  test.use({ viewport: { width: 360, height: 780 } });
  test('the contenders are folded, so that the charts are near', async ({ lab }) => {
    const page = await lab.open('?v=1&view=speed&variant=full,linear');
    await expect(page.locator('#contenders summary')).toContainText('2 chosen');
    await expect(page.locator('#contender-full')).toBeHidden();
    await page.locator('#contenders summary').click();
    await expect(page.locator('#contender-full')).toBeVisible();
  });
});
