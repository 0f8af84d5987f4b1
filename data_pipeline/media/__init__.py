"""Media: the only folder that touches containers and codecs.

    path -> probe()       -> MediaInfo: what is inside; one picture is decoded
    path -> read_frames() -> VideoFrame after VideoFrame, by time stamps, converted only when asked
    path -> read_constant_rate() -> the frame on screen at every 1 / rate s
    path -> read_audio()  -> (S,) int16 mono, on the same clock
    path -> frames_at()   -> (N, H, W, 3) uint8, at any times in any order; decord_pictures(): by number
    path -> encode_clip() -> one clip's .mp4 and .flac

One clock for all of them: zero is the moment at which the file's first picture is shown, in seconds.
Sound from before it is dropped, sound that starts late is preceded by silence.

Whatever is wrong with an input comes out as a MediaError with one of the pipeline's reasons. PyAV
decodes in sequence and encodes; decord answers random access. Neither is imported before it is used.
"""

from data_pipeline.media.audio import read_audio
from data_pipeline.media.damage import MAX_DAMAGED
from data_pipeline.media.encode import EncodedClip, encode_clip
from data_pipeline.media.info import MAX_PIXELS, AudioStream, MediaError, MediaInfo, VideoStream
from data_pipeline.media.probe import probe
from data_pipeline.media.random_access import decord_pictures, frames_at
from data_pipeline.media.video import VideoFrame, read_constant_rate, read_frames

__all__ = [
    "MAX_DAMAGED",
    "MAX_PIXELS",
    "AudioStream",
    "EncodedClip",
    "MediaError",
    "MediaInfo",
    "VideoFrame",
    "VideoStream",
    "decord_pictures",
    "encode_clip",
    "frames_at",
    "probe",
    "read_audio",
    "read_constant_rate",
    "read_frames",
]
