"""What is measured of videos: one file a metric, each with its known answers in the tests.

metric             what every metric is: measure, update, merge, compute
face               is there one, how large is it, and which way does it look?
interval           a mean over items, and how sure it is
lip_correlation    does the mouth open when the speech has it open?
"""
