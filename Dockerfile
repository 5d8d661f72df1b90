# Runs any of the scripts, headless, with a GPU when the container is given one (docker run --gpus all) and without it.
FROM python:3.12-slim

WORKDIR /app
ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    HF_HOME=/tmp/huggingface \
    MPLCONFIGDIR=/tmp/matplotlib

# pip settings of the builder (a mirror, a certificate) may be passed as build arguments
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL

# the dependencies first: they change less often than the code
COPY pyproject.toml setup.py README.md LICENSE NOTICE ./
RUN mkdir grounded_sam2 sam2 && touch grounded_sam2/__init__.py sam2/__init__.py \
    && pip install ".[app]" && pip uninstall -y grounded-sam2 && rm -rf grounded_sam2 sam2 build *.egg-info
# the SDK of the DDS cloud by itself: it asks for the windowed OpenCV, which needs libGL
RUN pip install "flask>=3.0" "requests>=2.31" "sentry-sdk>=2.28" && pip install --no-deps dds-cloudapi-sdk==0.5.3

COPY . .
RUN pip install --no-deps --editable .

ENTRYPOINT ["python"]
CMD ["grounded_sam2_tracking_demo.py"]
