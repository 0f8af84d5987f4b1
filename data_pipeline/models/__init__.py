"""The pretrained models behind the stages, one file a family; `weights.py` says where they come from."""
