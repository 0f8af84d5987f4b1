"""Checkpoint -> videos; figures are not here yet.

picture            an image file -> a portrait
animator           a checkpoint -> an image and a sound become a video; parts: which survives its maker
items              a list of videos to be made
fleet              videos over workers (worker) on several GPUs (crew), of which several share one (together)
"""
