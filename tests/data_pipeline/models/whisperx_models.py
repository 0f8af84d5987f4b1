"""Small models for WhisperX, in the shapes of those that only a hub has."""

import json
import shutil
import struct
import subprocess
from pathlib import Path

from data_pipeline import weights
from data_pipeline.models import whisper, whisperx_environment

EMBEDDINGS = b"decoder/embeddings/weight\0"
ENGLISH, N_LANGUAGES, FIRST_TIME = 50258, 99, 50363  # tokens <|en|>, ... <|su|>, ... <|0.00|>

_FILLED_ALIGNER = """
import json, sys, torch
from pathlib import Path
from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC
from transformers import Wav2Vec2Processor

folder = Path(sys.argv[1])
folder.mkdir(parents=True)
signs = ["<pad>", "<s>", "</s>", "<unk>", "|", "'"] + [chr(ord("A") + k) for k in range(26)]
(folder / "vocab.json").write_text(json.dumps({sign: k for k, sign in enumerate(signs)}))
tokenizer = Wav2Vec2CTCTokenizer(folder / "vocab.json")
Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(folder)
torch.manual_seed(0)
config = Wav2Vec2Config(
    vocab_size=len(signs), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
    conv_dim=[32] * 7, pad_token_id=0,
)
Wav2Vec2ForCTC(config).save_pretrained(folder)
"""


def filled_aligner(folder: Path) -> Path:
    """A small wav2vec2 with the signs of WAV2VEC2_ASR_BASE_960H and random weights: its times are noise."""
    python = whisperx_environment.python()
    subprocess.run([str(python), "-I", "-c", _FILLED_ALIGNER, str(folder)], check=True, capture_output=True)
    return folder


def multilingual(folder: Path, *, hears_english: bool) -> Path:
    """Whisper tiny.en with one token more, the empty one, by which CTranslate2 tells that it knows languages.

    It writes English as before, and holds all languages for equally likely: it never learned to tell. With
    `hears_english`, English has the vector of what the model is sure to say first."""
    source = weights.fetch(whisper.WEIGHTS)
    folder.mkdir(parents=True)
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
    (folder / "vocabulary.txt").write_bytes((source / "vocabulary.txt").read_bytes() + b"\n")
    config = json.loads((source / "config.json").read_text())
    config["lang_ids"] = list(range(ENGLISH, ENGLISH + N_LANGUAGES))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.bin").write_bytes(_widened((source / "model.bin").read_bytes(), hears_english))
    return folder


def _widened(model: bytes, hears_english: bool) -> bytes:
    """CTranslate2's model.bin has of each tensor its name, rank, sizes, type, number of bytes, and values."""
    header = struct.Struct("<BIIBI")
    at = model.index(EMBEDDINGS) + len(EMBEDDINGS)
    rank, n_tokens, width, kind, n_bytes = header.unpack_from(model, at)
    start, row = at + header.size, n_bytes // n_tokens
    values = bytearray(model[start : start + n_bytes])
    if hears_english:
        values[ENGLISH * row : (ENGLISH + 1) * row] = values[FIRST_TIME * row : (FIRST_TIME + 1) * row]
    values += values[-row:]
    return (
        model[:at]
        + header.pack(rank, n_tokens + 1, width, kind, len(values))
        + values
        + model[start + n_bytes :]
    )
