"""Objects followed through a video under one id each.

The modules about identity (rules, object_track, association, events, keeper) need no torch.
"""
