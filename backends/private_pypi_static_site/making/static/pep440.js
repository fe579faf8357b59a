// Compares versions as PEP 440 orders them. Numbers may have any length.
"use strict";

const PEP440 = new RegExp(
  "^\\s*v?(?:(\\d+)!)?(\\d+(?:\\.\\d+)*)" +
    "(?:[-_.]?(alpha|a|beta|b|preview|pre|c|rc)[-_.]?(\\d+)?)?" +
    "(?:-(\\d+)|[-_.]?(post|rev|r)[-_.]?(\\d+)?)?" +
    "(?:[-_.]?(dev)[-_.]?(\\d+)?)?" +
    "(?:\\+([a-z0-9]+(?:[-_.][a-z0-9]+)*))?\\s*$",
  "i",
);
const PRE = { alpha: 0n, a: 0n, beta: 1n, b: 1n, preview: 2n, pre: 2n, c: 2n, rc: 2n };

// The parts of a version; null if it is none. A part that is missing is undefined.
function parsePep440(text) {
  const found = PEP440.exec(text);
  if (!found) return null;
  const [, epoch, release, pre, preNumber, dashed, post, postNumber, dev, devNumber, local] = found;
  const numbers = release.split(".").map(BigInt);
  while (numbers.length > 1 && numbers.at(-1) === 0n) numbers.pop();
  const isPost = dashed !== undefined || post !== undefined;
  return {
    epoch: BigInt(epoch || 0),
    release: numbers,
    pre: pre && [PRE[pre.toLowerCase()], BigInt(preNumber || 0)],
    post: isPost ? BigInt(dashed || postNumber || 0) : undefined,
    dev: dev && BigInt(devNumber || 0),
    local: local && local.toLowerCase().split(/[-_.]/),
  };
}

function order(one, other) {
  return one < other ? -1 : one > other ? 1 : 0;
}

// Lists are compared item by item; a list that ends earlier comes first.
function orderLists(one, other, orderItems) {
  for (let index = 0; index < Math.max(one.length, other.length); index++) {
    if (index >= one.length) return -1;
    if (index >= other.length) return 1;
    const result = orderItems(one[index], other[index]);
    if (result) return result;
  }
  return 0;
}

// 1.0.dev1 comes before 1.0a1, which comes before 1.0 and 1.0.post1.
function preKey(version) {
  if (version.pre) return [0n, ...version.pre];
  const isOnlyDev = version.post === undefined && version.dev !== undefined;
  return [isOnlyDev ? -1n : 1n];
}

function orderLocal(one, other) {
  const numeric = [one, other].map((part) => /^\d+$/.test(part));
  if (numeric[0] && numeric[1]) return order(BigInt(one), BigInt(other));
  if (numeric[0] !== numeric[1]) return numeric[0] ? 1 : -1;
  return order(one, other);
}

// Negative, zero or positive; null if one of the texts is no version.
function comparePep440(one, other) {
  const [a, b] = [parsePep440(one), parsePep440(other)];
  if (!a || !b) return null;
  return (
    order(a.epoch, b.epoch) ||
    orderLists(a.release, b.release, order) ||
    orderLists(preKey(a), preKey(b), order) ||
    order(a.post ?? -1n, b.post ?? -1n) ||
    // No "dev" comes after every "dev".
    orderLists(a.dev === undefined ? [1n] : [0n, a.dev], b.dev === undefined ? [1n] : [0n, b.dev], order) ||
    orderLists(a.local ?? [], b.local ?? [], orderLocal)
  );
}

function isPrerelease(text) {
  const version = parsePep440(text);
  return version !== null && (version.pre !== undefined || version.dev !== undefined);
}
