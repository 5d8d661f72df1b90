"""Grounding DINO with a Swin-T backbone, trained on O365, GoldG and Cap4M (groundingdino_swint_ogc.pth)."""

# image encoder
backbone = "swin_T_224_1k"
return_interm_indices = [1, 2, 3]  # stages of the backbone that are read, 0-based
position_embedding = "sine"
pe_temperatureH = 20
pe_temperatureW = 20

# text encoder
text_encoder_type = "bert-base-uncased"
max_text_len = 256
sub_sentence_present = True

# feature enhancer and decoder
hidden_dim = 256
nheads = 8
dim_feedforward = 2048
enc_layers = 6
dec_layers = 6
num_feature_levels = 4
enc_n_points = 4
dec_n_points = 4
transformer_activation = "relu"
use_text_enhancer = True
use_fusion_layer = True
use_text_cross_attention = True

# queries and boxes
num_queries = 900
query_dim = 4
two_stage_type = "standard"
embed_init_tgt = True
