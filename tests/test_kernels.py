"""Kernel names of several generations, and the traps among them."""

from __future__ import annotations

import pytest

from precisionbench.diagnosis.kernels import classify

# Names seen in profiles: on an H100 and an H200 by us, elsewhere in public issues and papers.
NAMES = {
    # Volta
    "volta_fp16_s884cudnn_fp16_256x128_ldg8_relu_f2f_exp_small_nhwc_tn_v1": (
        "convolution", "tensor_core", "float16"),
    "volta_h884gemm_64x128_ldg8_nn": ("product", "tensor_core", "float16"),
    "volta_fp16_s884gemm_fp16_128x128_ldg8_f2f_tn": ("product", "tensor_core", "float16"),
    "volta_scudnn_128x64_relu_interior_nn_v1": ("convolution", "cuda_core", "float32"),
    "volta_sgemm_128x64_tn": ("product", "cuda_core", "float32"),
    # half storage, arithmetic on ordinary cores
    "volta_fp16_sgemm_fp16_128x32_nt": ("product", "cuda_core", "float16"),
    # Turing
    "turing_fp16_s1688cudnn_fp16_128x128_ldg8_relu_f2f_exp_interior_nhwc_tn_v1": (
        "convolution", "tensor_core", "float16"),
    "turing_h1688gemm_128x64_ldg8_stages_32x1_tn": ("product", "tensor_core", "float16"),
    "turing_s1688gemm_fp16_128x128_ldg8_f2f_tn": ("product", "tensor_core", "float16"),
    "void cutlass::Kernel<cutlass_75_tensorop_s1688gemm_f16_128x128_nn_align8>": (
        "product", "tensor_core", "float16"),
    # Ampere
    "ampere_sgemm_128x64_tn": ("product", "cuda_core", "float32"),
    "ampere_scudnn_128x32_relu_interior_nn_v1": ("convolution", "cuda_core", "float32"),
    "ampere_fp16_s16816gemm_fp16_128x128_ldg8_f2f_stages_32x5_tn": (
        "product", "tensor_core", "float16"),
    "ampere_bf16_s16816gemm_bf16_128x64_ldg8_f2f_stages_64x3_tn": (
        "product", "tensor_core", "bfloat16"),
    "void cutlass::Kernel<cutlass_80_tensorop_s1688gemm_128x256_16x3_nn_align4>(...)": (
        "product", "tensor_core", "tf32"),
    "void cutlass::Kernel<cutlass_80_simt_sgemm_128x64_8x5_nn_align1>(...)": (
        "product", "cuda_core", "float32"),
    "void cutlass::Kernel<cutlass_80_wmma_tensorop_f16_s161616gemm_f16_16x16_128x2_tn_align8>": (
        "product", "tensor_core", "float16"),
    "sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nchw_tilesize128x128x16_stage4":
        ("convolution", "tensor_core", "tf32"),
    "sm80_xmma_gemm_f16f16_f16f16_f16_tn_n_tilesize96x64x32_stage3_warpsize2x2x1_tensor16x8x16":
        ("product", "tensor_core", "float16"),
    "sm80_xmma_fprop_implicit_gemm_i8i8_i8i32_f32_nchw_vect_c_32kcrs_vect_c_32_nchw_tensor16x8x32":
        ("convolution", "tensor_core", "int8"),
    # Hopper, as we saw them
    "sm80_xmma_gemm_f32f32_f32f32_f32_tn_n_tilesize256x64x8_stage3_warpsize2x2x1_ffma_aligna4": (
        "product", "cuda_core", "float32"),
    "sm80_xmma_fprop_implicit_gemm_f32f32_f32f32_f32_nchwkcrs_nchw_tilesize128x32x8_g1_ffma": (
        "convolution", "cuda_core", "float32"),
    "sm80_xmma_gemm_cf32cf32_f32f32_cf32_cf32_nt_n_tilesize64x32x8_stage3": (
        "product", "cuda_core", "float32"),
    "sm90_xmma_gemm_f32f32_tf32f32_f32_tn_n_tilesize128x128x32_warpgroupsize1x1x1": (
        "product", "tensor_core", "tf32"),
    "sm90_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_nhwckrsc_nhwc_tilesize128x64x64_warpgroup": (
        "convolution", "tensor_core", "float16"),
    "void cutlass__5x_cudnn::Kernel<cutlass_tensorop_f16_s16816fprop_optimized_f16_256x64_32x4_"
    "nhwc_align8>(...)": ("convolution", "tensor_core", "float16"),
    "void gemmSN_TN_kernel<float, 128, 16, 2, 4, 8, 9, false, cublasGemvTensorStridedBatched": (
        "product", "cuda_core", "float32"),
    "void cudnn::detail::dgrad_engine<float, 512, 6, 5, 3, 3, 3, false>(int, int, int)": (
        "convolution", "cuda_core", "float32"),
    "void elemWiseRNNcell<__half, __half, float, (cudnnRNNMode_t)2, (cudnnRNNBiasMode_t)2>(int)": (
        "pointwise", "unknown", "float16"),
    "void internal::region_transform_ABC_val<int, 32, 32, false, internal::Params<__half": (
        "pointwise", "unknown", "float16"),
    "void flip_filter<float, float>(float*, float const*, int, int, int, int)": (
        "layout", "unknown", "float32"),
    "nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_NNN": ("product", "tensor_core", "float16"),
    "nvjet_tst_192x192_64x4_2x1_v_bz_coopB_TNN": ("product", "tensor_core", "bfloat16"),
    "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 4, cutlass::half_t>":
        ("attention", "tensor_core", "float16"),
    "fmha_cutlassF_f32_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel<float,": (
        "attention", "tensor_core", "float32"),
    "void at::native::(anonymous namespace)::conv_depthwise2d_forward_kernel<3, float, int>(": (
        "convolution", "cuda_core", "float32"),
    "conv2d_c1_k1_nchw_shmem_tiling": ("convolution", "cuda_core", "unknown"),
    # Blackwell
    "nvjet_sm100_hsh_128x128_64x6_2x1_2cta_v_bz_NNT": ("product", "tensor_core", "float16"),
    "cutlass3x_sm100_tensorop_s128x256x16gemm_bf16_bf16_f32_bf16_bf16_128x256x64": (
        "product", "tensor_core", "bfloat16"),
    # what moves and what is small
    "void cudnn::engines_precompiled::nchwToNhwcKernel<__half, __half, float, false, true, 0>": (
        "layout", "unknown", "float16"),
    "void tensorTransformGeneric<__half, __half, float, true, false, false, 0>": (
        "layout", "unknown", "float16"),
    "void genericTranspose_kernel<float, float>": ("layout", "unknown", "float32"),
    "void at::native::batch_norm_transform_input_kernel<c10::Half, c10::Half, float, true, int>": (
        "norm", "unknown", "float16"),
    "cudnn::bn_fw_inf_1C11_kernel_NCHW<__half, float, true, 1>": ("norm", "unknown", "float16"),
    "void at::native::vectorized_elementwise_kernel<8, at::native::float16_copy_kernel_cuda(...)": (
        "copy", "unknown", "float16"),
    "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>": (
        "pointwise", "unknown", "float32"),
    "void cudnn::ops::convertTensor_kernel<float, __half, float>": (
        "layout", "unknown", "float16"),
    "triton_poi_fused__scaled_dot_product_efficient_attention_add_3": (
        "pointwise", "unknown", "unknown"),
    "triton_poi_fused_add_relu_0": ("pointwise", "unknown", "unknown"),
    "void (anonymous namespace)::softmax_warp_forward<float, float, float, 8, false, false>": (
        "reduction", "unknown", "float32"),
    "void LSTM_elementWise_fp<__half, __half, float>": ("recurrent", "unknown", "float16"),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_kernels_are_classified_by_name(name):
    found = classify(name)
    assert (found.kind, found.unit, found.dtype) == NAMES[name]


def test_a_matmul_kernel_with_an_unknown_name_has_an_unknown_unit():
    assert classify("next_generation_gemm_v7").unit == "unknown"


def test_a_name_without_a_rule_is_unknown():
    found = classify("my_own_kernel")
    assert (found.kind, found.unit, found.dtype) == ("unknown",) * 3
