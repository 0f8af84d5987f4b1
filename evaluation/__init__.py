"""Checkpoint -> videos; figures are not here yet.

picture            an image file -> a portrait
animator           a checkpoint -> an image and a sound become a video; parts: which survives its maker
"""
