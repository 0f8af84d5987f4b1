"""Checkpoint -> videos, and whether mouths in them follow voices; FID, FVD and benchmarks are not here yet.

picture            an image file -> a portrait
animator           a checkpoint -> an image and a sound become a video; setup: its size, rate, place in memory
parts              which survives its maker; provenance: under whose signature it says what it is
items              a list of videos to be made
fleet              videos over workers (worker) on several GPUs (crew), of which several share one (together)
app                the web page (page) of one model (studio), one video at a time (waiting_line, own_origin)
seeing             a video file -> pictures, sound and the speaker's face, once for all metrics
metrics/           what is measured of videos; networks/: those whose features metrics compare
learned            what training taught the mouth; learned_report: the page that says so
"""
