// msgpack for what this game sends (https://github.com/msgpack/msgpack/blob/master/spec.md), but for extension types.
// Whole numbers beyond 2^53 lose their last digits, as all numbers of JavaScript's do.

const utf8 = new TextEncoder();
const text = new TextDecoder("utf-8", { fatal: true });

// The value in `buffer`, an ArrayBuffer. Throws a RangeError for one that is cut off or goes on behind the value.
export function decode(buffer) {
  const view = new DataView(buffer);
  let at = 0;

  function take(size) {
    at += size;
    return at - size;
  }
  const bytes = (size) => {
    if (at + size > buffer.byteLength) throw new RangeError("a message that is cut off");
    return new Uint8Array(buffer, take(size), size);
  };
  const string = (size) => text.decode(bytes(size));
  const array = (size) => {
    const values = [];
    for (let i = 0; i < size; i++) values.push(value());
    return values;
  };
  const map = (size) => {
    const values = {};
    for (let i = 0; i < size; i++) {
      const key = value();
      values[key] = value();
    }
    return values;
  };
  const uint = { 1: () => view.getUint8(take(1)), 2: () => view.getUint16(take(2)), 4: () => view.getUint32(take(4)) };

  const readers = {
    0xc0: () => null,
    0xc2: () => false,
    0xc3: () => true,
    0xc4: () => bytes(uint[1]()),
    0xc5: () => bytes(uint[2]()),
    0xc6: () => bytes(uint[4]()),
    0xca: () => view.getFloat32(take(4)),
    0xcb: () => view.getFloat64(take(8)),
    0xcc: uint[1],
    0xcd: uint[2],
    0xce: uint[4],
    0xcf: () => Number(view.getBigUint64(take(8))),
    0xd0: () => view.getInt8(take(1)),
    0xd1: () => view.getInt16(take(2)),
    0xd2: () => view.getInt32(take(4)),
    0xd3: () => Number(view.getBigInt64(take(8))),
    0xd9: () => string(uint[1]()),
    0xda: () => string(uint[2]()),
    0xdb: () => string(uint[4]()),
    0xdc: () => array(uint[2]()),
    0xdd: () => array(uint[4]()),
    0xde: () => map(uint[2]()),
    0xdf: () => map(uint[4]()),
  };

  function value() {
    const head = uint[1]();
    if (head < 0x80) return head;
    if (head < 0x90) return map(head & 0x0f);
    if (head < 0xa0) return array(head & 0x0f);
    if (head < 0xc0) return string(head & 0x1f);
    if (head >= 0xe0) return head - 0x100;
    if (!readers[head]) throw new RangeError(`no msgpack that this game knows begins with ${head}`);
    return readers[head]();
  }

  const decoded = value();
  if (at !== buffer.byteLength) throw new RangeError("more than one value in a message");
  return decoded;
}

// `value` (null, booleans, numbers, strings, arrays and plain objects) as a Uint8Array.
export function encode(value) {
  const parts = [];
  write(value, parts);
  return new Uint8Array(parts);
}

function write(value, parts) {
  if (value === null || value === undefined) parts.push(0xc0);
  else if (typeof value === "boolean") parts.push(value ? 0xc3 : 0xc2);
  else if (typeof value === "number") writeNumber(value, parts);
  else if (typeof value === "string") {
    const bytes = utf8.encode(value);
    if (bytes.length < 32) parts.push(0xa0 | bytes.length);
    else writeSize(bytes.length, [0xd9, 0xda, 0xdb], parts);
    parts.push(...bytes);
  } else if (Array.isArray(value)) {
    if (value.length < 16) parts.push(0x90 | value.length);
    else writeSize(value.length, [null, 0xdc, 0xdd], parts);
    for (const item of value) write(item, parts);
  } else {
    const entries = Object.entries(value);
    if (entries.length < 16) parts.push(0x80 | entries.length);
    else writeSize(entries.length, [null, 0xde, 0xdf], parts);
    for (const [key, item] of entries) write(key, parts), write(item, parts);
  }
}

function writeNumber(value, parts) {
  if (!Number.isSafeInteger(value) || Object.is(value, -0)) parts.push(0xcb, ...big((view) => view.setFloat64(0, value)));
  else if (value >= 0 && value < 0x80) parts.push(value);
  else if (value < 0 && value >= -0x20) parts.push(value & 0xff);
  else if (value >= 0 && value <= 0xffffffff) writeSize(value, [0xcc, 0xcd, 0xce], parts);
  else parts.push(0xd3, ...big((view) => view.setBigInt64(0, BigInt(value))));
}

// A number in the smallest of 1, 2 and 4 bytes for which there is a head.
function writeSize(size, heads, parts) {
  const index = size < 0x100 && heads[0] !== null ? 0 : size < 0x10000 ? 1 : 2;
  parts.push(heads[index]);
  for (let shift = 8 * (2 ** index - 1); shift >= 0; shift -= 8) parts.push((size >>> shift) & 0xff);
}

function big(set) {
  const view = new DataView(new ArrayBuffer(8));
  set(view);
  return new Uint8Array(view.buffer);
}
