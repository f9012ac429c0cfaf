# The in-cluster S3 server where no registry can be reached: the binary alone, in the context's root.
FROM scratch
COPY versitygw /usr/local/bin/versitygw
USER 10001:10001
ENTRYPOINT ["/usr/local/bin/versitygw"]
