// Where the labels of a chart stand.

// Heights of labels that want to stand at `y` and are `tall` pixels high, in their order: none lies on another, each as near to
// where it wants to be as the others let it, and all between `top` and `bottom` where there is room for them.
export function apart(labels, top, bottom) {
  const order = labels.map((_, at) => at).sort((a, b) => labels[a].y - labels[b].y || a - b);
  // Labels that touch stand together, around the middle of where they want to be.
  const stacks = [];
  for (const at of order) {
    const { y, tall } = labels[at];
    let stack = { members: [at], tall, from: y - tall / 2 };
    for (let above = stacks.at(-1); above && above.from + above.tall > stack.from; above = stacks.at(-1)) {
      stacks.pop();
      const [n, m] = [above.members.length, stack.members.length];
      // Where each of the two stacks would have the first of them.
      const from = (n * above.from + m * (stack.from - above.tall)) / (n + m);
      stack = { members: [...above.members, ...stack.members], tall: above.tall + stack.tall, from };
    }
    stack.from = Math.max(Math.min(stack.from, bottom - stack.tall), top);
    stacks.push(stack);
  }
  // What the edges have moved may touch again.
  for (let at = stacks.length - 1, floor = bottom; at >= 0; floor = stacks[at].from, at -= 1) {
    stacks[at].from = Math.min(stacks[at].from, floor - stacks[at].tall);
  }
  const overflow = Math.max(0, top - (stacks[0]?.from ?? top));
  const placed = [];
  for (const { members, from } of stacks) {
    let edge = from + overflow;
    for (const at of members) {
      placed[at] = edge + labels[at].tall / 2;
      edge += labels[at].tall;
    }
  }
  return placed;
}
