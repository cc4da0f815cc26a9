#!/usr/bin/env python3
"""Writes the first corpus of gguf_fuzz: tiny GGUF files, whole, cut short, and lying about their lengths.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import pathlib
import struct

U32, F32, STRING, ARRAY, U64 = 4, 6, 8, 9, 10  # value types


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def pair(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def u32(key, value):
    return pair(key, U32, struct.pack("<I", value))


def f32(key, value):
    return pair(key, F32, struct.pack("<f", value))


def string(key, value):
    return pair(key, STRING, text(value))


def array(key, kind, values, count=None):
    head = struct.pack("<IQ", kind, len(values) if count is None else count)
    return pair(key, ARRAY, head + b"".join(values))


def tensor(name, dims, kind=0, offset=0):
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def gguf(pairs=(), tensors=(), data=b"", version=3, num_pairs=None, num_tensors=None):
    head = b"GGUF" + struct.pack(
        "<IQQ",
        version,
        len(tensors) if num_tensors is None else num_tensors,
        len(pairs) if num_pairs is None else num_pairs,
    )
    body = head + b"".join(pairs) + b"".join(tensors)
    return body + b"\0" * (-len(body) % 32) + data


def llama():
    pairs = [
        string("general.architecture", "llama"),
        u32("llama.block_count", 1),
        u32("llama.context_length", 64),
        u32("llama.embedding_length", 32),
        u32("llama.feed_forward_length", 64),
        u32("llama.attention.head_count", 2),
        u32("llama.attention.head_count_kv", 1),
        f32("llama.attention.layer_norm_rms_epsilon", 1e-5),
        f32("llama.rope.freq_base", 10000.0),
        array("tokenizer.ggml.tokens", STRING, [text("a"), text("b")]),
        array("tokenizer.ggml.token_type", 5, [struct.pack("<i", 1)] * 2),
        string("tokenizer.ggml.model", "gpt2"),
    ]
    tensors = [tensor("token_embd.weight", [32, 2]), tensor("output_norm.weight", [32], 0, 256)]
    return pairs, tensors, b"\0" * (256 + 128)


# ggml's types with blocks of 32 values, and the bytes of a block
BLOCK_BYTES = {0: 128, 1: 64, 2: 18, 3: 20, 6: 22, 7: 24, 8: 34, 20: 18}


def one_layer():
    """All tensors of the model that llama() is the beginning of: small, in many types."""
    q4_0, q4_1, q5_0, q5_1, q8_0, iq4_nl, f16, f32 = 2, 3, 6, 7, 8, 20, 1, 0
    wanted = [
        ("token_embd", [32, 2], q8_0),
        ("output_norm", [32], f32),
        ("blk.0.attn_norm", [32], f32),
        ("blk.0.attn_q", [32, 32], q4_0),
        ("blk.0.attn_k", [32, 16], q4_1),
        ("blk.0.attn_v", [32, 16], f16),
        ("blk.0.attn_output", [32, 32], q5_0),
        ("blk.0.ffn_norm", [32], f16),
        ("blk.0.ffn_gate", [32, 64], q5_1),
        ("blk.0.ffn_up", [32, 64], iq4_nl),
        ("blk.0.ffn_down", [64, 32], q4_0),
    ]
    tensors, data = [], b""
    for name, dims, kind in wanted:
        tensors.append(tensor(f"{name}.weight", dims, kind, len(data)))
        num_bytes = math.prod(dims) // 32 * BLOCK_BYTES[kind]
        # Small as f16, f32 and nibbles alike: every byte below 0x3c.
        data += bytes(i * 7 % 60 for i in range(num_bytes + -num_bytes % 32))
    return tensors, data


def seeds():
    pairs, tensors, data = llama()
    layer, layer_data = one_layer()
    yield "one_layer", gguf(pairs, layer, layer_data)
    yield "one_layer_without_the_last_tensor", gguf(pairs, layer[:-1], layer_data)
    yield "one_layer_output_apart", gguf(
        pairs, [*layer, tensor("output.weight", [32, 2], 8, len(layer_data))], layer_data + b"\0" * 96
    )
    yield "one_layer_of_another_width", gguf(
        [u32("llama.feed_forward_length", 32) if text("llama.feed_forward_length") in p else p for p in pairs],
        layer,
        layer_data,
    )
    whole = gguf(pairs, tensors, data)
    yield "llama", whole
    yield "llama_v2", gguf(pairs, tensors, data, version=2)
    for share in (1, 3, 5, 7):
        yield f"cut_{share}_of_8", whole[: len(whole) * share // 8]
    yield "cut_last_byte", whole[:-1]
    yield "empty", b""
    yield "magic_only", b"GGUF"
    yield "wrong_magic", b"GGML" + whole[4:]
    yield "version_1", gguf(version=1)
    yield "version_99", gguf(version=99)
    yield "big_endian", b"GGUF" + struct.pack(">IQQ", 3, 0, 0)
    yield "nothing_inside", gguf()
    yield "tensors_2_63", gguf(num_tensors=1 << 63)
    yield "pairs_all_ones", gguf(num_pairs=(1 << 64) - 1)
    yield "key_2_60", gguf() + struct.pack("<Q", 1 << 60)
    yield "string_2_60", gguf([pair("k", STRING, struct.pack("<Q", 1 << 60))])
    yield "array_2_61", gguf([array("k", U64, [], count=1 << 61)])
    yield "array_of_arrays", gguf([array("k", ARRAY, [struct.pack("<IQ", ARRAY, 1)] * 8, count=1)])
    yield "value_type_77", gguf([pair("k", 77, b"\0" * 8)])
    yield "same_key_twice", gguf([u32("k", 1), u32("k", 2)])
    yield "alignment_0", gguf([u32("general.alignment", 0), *pairs], tensors, data)
    yield "alignment_3", gguf([u32("general.alignment", 3), *pairs], tensors, data)
    yield "alignment_2_31", gguf([u32("general.alignment", 1 << 31), *pairs], tensors, data)
    yield "split_of_65535", gguf([pair("split.count", 2, struct.pack("<H", 65535)), *pairs], tensors, data)
    for name, bad in {
        "type_999": tensor("t", [32], 999),
        "dims_0": tensor("t", []),
        "dims_5": tensor("t", [1] * 5),
        "dims_4_billion": tensor("t", [1])[:9] + struct.pack("<I", 0xFFFFFFFF),
        "size_overflow": tensor("t", [1 << 32, 1 << 32]),
        "size_0": tensor("t", [0, 4]),
        "negative": tensor("t", [(1 << 64) - 32]),
        "no_block_multiple": tensor("t", [33], 2),
        "offset_odd": tensor("t", [32], 0, 5),
        "offset_far": tensor("t", [32], 0, 1 << 62),
    }.items():
        yield f"tensor_{name}", gguf(pairs, [bad], data)
    yield "same_tensor_twice", gguf(pairs, [tensors[0], tensors[0]], data)
    for key in ("block_count", "embedding_length", "attention.head_count"):
        for value in (0, 0xFFFFFFFF):
            changed = [u32(f"llama.{key}", value) if text(f"llama.{key}") in p else p for p in pairs]
            yield f"llama_{key}_{value}", gguf(changed, tensors, data)


def main():
    folder = pathlib.Path(__file__).parent / "corpus" / "gguf_fuzz"
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in seeds():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
