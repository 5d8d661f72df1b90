"""Objects followed through a video under one id each.

Only the adapter over SAM 2 (sam2_follower) and saved runs (resume) need torch.
"""
