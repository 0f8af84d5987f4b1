"""What is measured of videos: one file a metric, each with its known answers in the tests.

metric             what every metric is: measure, update, merge, compute
face               is there one, how large is it, and which way does it look?
interval           a mean over items, and how sure it is
mean_of_clips      the state of every metric whose figures are means over clips
sync               Sync-C, Sync-D and the offset, by SyncNet; syncnet_crops: the face as it is shown to it
lip_sync           what stands in for them without its weights, under names of its own
csim               is it the person in the portrait?
dynamics           how fast the face moves, and what is around it
flicker            what changes beyond motion; optical_flow: of both
sharpness          of the face
quality            of whole pictures, by BRISQUE (brisque)
lip_correlation    does the mouth open when the speech has it open?
fid, fvd, e_fid    do pictures, motion and expressions have the distribution of real ones?
frechet_metric     what these three share: a state of generated clips, another of real ones, the distance
clip_groups        features of clips in ten groups, for an interval; frechet: moments, and the distance
feature_network    the published network or a stand-in; stored_state: a state in a file, under its protocol
"""
