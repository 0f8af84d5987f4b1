"""What is measured of videos: one file a metric, each with its known answers in the tests.

metric             what every metric is: measure, update, merge, compute
interval           a mean over items, and how sure it is
lip_correlation    does the mouth open when the speech has it open?
fid, fvd, e_fid    do pictures, motion and expressions have the distribution of real ones?
frechet_metric     what these three share: a state of generated clips, another of real ones, the distance
clip_groups        features of clips in ten groups, for an interval; frechet: moments, and the distance
feature_network    the published network or a stand-in; stored_state: a state in a file, under its protocol
"""
