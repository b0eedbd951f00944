"""Writes a random model of a few hundred kilobytes, tokenizer included: `tiny_model.py FILE`.

It needs `gguf`, and runs in the engine's own environment. Each character is one token, so that a
text can be cut into tokens in one way only: a server that truly goes on from the beginning of an
answer ends up, at temperature 0, with the very answer it would have given uncut.
"""

import sys

import gguf
import numpy as np

CHARACTERS = "▁abcdefghijklmnopqrstuvwxyz.,é世🙂"
SPECIALS = ("<unk>", "<s>", "</s>")
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
TOKENS = (*SPECIALS, *BYTES, *CHARACTERS)
TEMPLATE = """{% if tools %}[tools] {{ tools | tojson }}
{% endif %}{% for m in messages %}[{{ m.role }}] {{ m.content or "" }}
{%- for call in m.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}
{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"""
WIDTH, HEADS, LAYERS, INNER = 64, 4, 2, 128
END = TOKENS.index("</s>")


def main(path):
    writer = gguf.GGUFWriter(path, "llama")
    describe(writer)
    for name, values in weights(np.random.default_rng(7)):
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def describe(writer):
    writer.add_name("tiny")
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(list(TOKENS))
    writer.add_token_scores([0.0] * len(TOKENS))
    writer.add_token_types([kind(token) for token in TOKENS])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(END)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)


def kind(token):
    if token in BYTES:
        return gguf.TokenType.BYTE
    if token == "<unk>":
        return gguf.TokenType.UNKNOWN
    return gguf.TokenType.CONTROL if token in SPECIALS else gguf.TokenType.NORMAL


def weights(dice):
    def drawn(*shape, scale=1.0):
        return dice.normal(0.0, scale / np.sqrt(shape[-1]), shape)

    # The first number of each token's vector is the same, and the output weighs it so that only
    # characters, and rarely the end, are ever said.
    seen = drawn(len(TOKENS), WIDTH, scale=8.0)
    seen[:, 0] = 2.0
    said = drawn(len(TOKENS), WIDTH, scale=8.0)
    said[:, 0] = [60.0 if token in CHARACTERS else -60.0 for token in TOKENS]
    said[END, 0] = 45.0
    yield "token_embd.weight", seen
    yield "output_norm.weight", np.ones(WIDTH)
    yield "output.weight", said
    for at in range(LAYERS):
        block = f"blk.{at}"
        yield f"{block}.attn_norm.weight", np.ones(WIDTH)
        yield f"{block}.ffn_norm.weight", np.ones(WIDTH)
        for part in ("attn_q", "attn_k", "attn_v"):
            yield f"{block}.{part}.weight", drawn(WIDTH, WIDTH, scale=2.0)
        yield f"{block}.attn_output.weight", steady(drawn(WIDTH, WIDTH))
        yield f"{block}.ffn_gate.weight", drawn(INNER, WIDTH, scale=2.0)
        yield f"{block}.ffn_up.weight", drawn(INNER, WIDTH, scale=2.0)
        yield f"{block}.ffn_down.weight", steady(drawn(WIDTH, INNER))


def steady(values):
    """Leaves the first number alone."""
    values[0] = 0.0
    return values


if __name__ == "__main__":
    main(sys.argv[1])
