"""Checkpoint -> videos; checkpoint + benchmark -> figures, a report, and whether to release it.

picture            an image file -> a portrait
animator           a checkpoint -> an image and a sound become a video; setup: its size, rate, place in memory
parts              which survives its maker; provenance: under whose signature it says what it is
items              a list of videos to be made
fleet              videos over workers (worker) on several GPUs (crew), of which several share one (together)
app                the web page (page) of one model (studio), one video at a time (waiting_line, own_origin)
seeing             a video file -> pictures, sound and the speaker's face, once for all metrics
metrics/           what is measured of videos; networks/: those whose features metrics compare
learned            what training taught the mouth; learned_report: the page that says so

runner             an evaluation from its benchmarks to its results; config: what it depends on
benchmarks         items under a hash: benchmark_of_dataset, benchmark_of_list, benchmark_of_published
protocol           what a figure depends on besides the model, under a hash
scoring            videos over workers (scorer), which see a clip (look) once for all metrics (registry)
found_store        what was found in a clip, on the disk; figures: what all clips come to; subgroups of them
results            figures.json, clips.parquet; comparison, gate: against a baseline
report             the folder in which a person sees it; report_clips: which clips that shows
tracking           all of it in MLflow; lineage: where a checkpoint comes from; watch: every new one of a run
"""
