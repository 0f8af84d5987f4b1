"""Dataset -> model.

config             what a run depends on; run_folder: that the same drives it again
prepare, plan      what can be wrong, and what it takes, before it begins (memory_plan, flops)
launch             workers under Ray Train; failures: which of theirs another start mends; __main__: torchrun
worker             one worker of a run: start_model, lora, engine, optimizer -> trainer -> export
trainer            the loop; step_figures: what a step tells; validation: the held-out loss
phases             which weights train
encoders           the frozen models; precompute, features: what they give, stored
samples            a worker's batches: windows, order, sample, conditions, windows_of_speech, clip_pixels,
                   mouth
batch, objective   the samples of a micro-batch; both networks and the loss
checkpoint         a run's state on any number of workers: checkpoint_folder, fragments, fragment_files
generate           a portrait and a voice -> frames; example, previews, clip_file: sample clips of a run
metrics            what a run has to say, a line a measurement -> progress, tracking (mlflow_run), report
                   (history, curves, takes)
model/, diffusion/ the networks; noise, loss, sampler
"""
