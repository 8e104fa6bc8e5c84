"""The closed set of operations of a program: torch's ATen operators that compute a value and do nothing else.

None of them writes into its operands, or makes a result whose shape depends on values. Those that draw random numbers
do so in training mode only: in evaluation mode dropouts pass on their input, and every other draw is its mean.
"""

from __future__ import annotations

# operations on sizes, which are integers
INTEGER = ("add", "sub", "mul", "floordiv", "mod", "neg", "truediv", "floor", "ceil", "trunc", "max", "min")

BY_KIND = {
    "shapes": """
        getitem sym_size reshape view_as flatten unflatten unsqueeze squeeze permute transpose t swapaxes expand
        expand_as repeat repeat_interleave slice select split split_with_sizes unsafe_split unsafe_split_with_sizes
        unsafe_chunk chunk unbind cat stack pad constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d
        replication_pad2d flip roll rot90 narrow diagonal movedim tile slice_scatter select_scatter unfold im2col
        col2im to detach type_as tril triu diag
        """,
    "numbers": """
        arange linspace empty new_empty ones ones_like new_ones zeros zeros_like new_zeros full full_like new_full
        scalar_tensor eye empty_like fill one_hot
        """,
    "elementwise": """
        add sub rsub mul div pow neg abs sign exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal square sin cos
        tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh arcsinh arctan erf erfc sigmoid log_sigmoid
        log_sigmoid_forward logit special_erf special_expit special_ndtr relu relu6 leaky_relu elu selu celu gelu silu
        mish softplus hardtanh hardswish hardsigmoid hardshrink softshrink threshold prelu glu rrelu rrelu_with_noise
        clamp clamp_min clamp_max maximum minimum where masked_fill floor ceil round trunc frac remainder fmod
        floor_divide fmax fmin copysign sgn signbit isposinf isneginf lerp addcmul addcdiv eq ne lt le gt ge
        logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor isnan isinf
        nan_to_num heaviside
        """,
    "products": """
        linear matmul mm bmm mv dot outer addmm baddbmm einsum bilinear conv1d conv2d conv3d conv_transpose1d
        conv_transpose2d conv_transpose3d convolution scaled_dot_product_attention gru lstm rnn_tanh rnn_relu
        linalg_vector_norm cdist _cdist_forward cosine_similarity _weight_norm _weight_norm_interface
        """,
    "reductions": """
        sum mean prod amax amin max min argmax argmin any all var std var_mean norm logsumexp softmax _softmax
        log_softmax _log_softmax cumsum cumprod sort topk argsort msort kthvalue median mode cummax
        """,
    "norms": "layer_norm rms_norm group_norm batch_norm instance_norm native_layer_norm native_group_norm",
    "images": """
        avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d max_pool1d
        max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d
        adaptive_max_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d
        upsample_linear1d upsample_trilinear3d upsample_bicubic2d _upsample_nearest_exact2d pixel_shuffle
        pixel_unshuffle channel_shuffle
        """,
    "indices": """
        embedding embedding_bag _embedding_bag index_select index gather scatter scatter_add scatter_reduce index_add
        index_put take_along_dim _embedding_bag_forward_only
        """,
    "draws": """
        dropout alpha_dropout feature_alpha_dropout bernoulli rand rand_like randn randn_like uniform normal_functional
        """,
    "sizes": " ".join(f"int_{name}" for name in INTEGER),
}
OPERATIONS = frozenset(name for names in BY_KIND.values() for name in names.split())
