locals {
  # What the chart selects and tolerates. The names are in docs/terraform.md.
  labels = { for name, pool in var.pools : name => merge(
    { "embedmill/pool" = name }, pool.gpu ? { "nvidia.com/gpu.present" = "true" } : {}
  ) }

  # One taint: what belongs to every GPU node, as NVIDIA's device plugin, tolerates nvidia.com/gpu alone.
  taints = { for name, pool in var.pools : name => concat(
    pool.gpu ? [{ key = "nvidia.com/gpu", value = "present" }] : [],
    pool.dedicated && !pool.gpu ? [{ key = "embedmill/pool", value = name }] : [],
  ) }

  # As tags of the scaling group, by which the autoscaler knows the node of a pool that has none.
  template_tags = merge([for name, pool in var.pools : merge(
    { for key, value in local.labels[name] : "${name}/label/${key}" => {
      pool = name, key = "k8s.io/cluster-autoscaler/node-template/label/${key}", value = value
    } },
    { for taint in local.taints[name] : "${name}/taint/${taint.key}" => {
      pool  = name
      key   = "k8s.io/cluster-autoscaler/node-template/taint/${taint.key}"
      value = "${taint.value}:NoSchedule"
    } },
    pool.gpu ? { "${name}/resources/nvidia.com/gpu" = {
      pool = name, key = "k8s.io/cluster-autoscaler/node-template/resources/nvidia.com/gpu", value = tostring(pool.gpus)
    } } : {},
  )]...)
}

resource "aws_iam_role" "node" {
  name        = "${var.name}-node"
  description = "Nodes of the cluster ${var.name}; pods take roles of their own"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each = toset(["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly", "AmazonEKS_CNI_Policy"])

  role       = aws_iam_role.node.name
  policy_arn = "arn:${var.partition}:iam::aws:policy/${each.key}"
}

resource "aws_launch_template" "pool" {
  for_each = var.pools

  name                   = "${var.name}-${each.key}"
  description            = "Nodes of the pool ${each.key}"
  update_default_version = true

  # One hop: a pod cannot ask for the node's role, and has its service account's alone.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  # Scratch of Spark and Ray lies here.
  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_type           = "gp3"
      volume_size           = each.value.disk_gb
      encrypted             = true
      delete_on_termination = true
    }
  }

  tag_specifications {
    resource_type = "instance"
    tags          = merge(var.tags, { Name = "${var.name}-${each.key}" })
  }

  tag_specifications {
    resource_type = "volume"
    tags          = merge(var.tags, { Name = "${var.name}-${each.key}" })
  }
}

resource "aws_eks_node_group" "pool" {
  for_each = var.pools

  cluster_name    = aws_eks_cluster.this.name
  node_group_name = each.key
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = [for zone in(each.value.zones == null ? keys(var.subnet_ids) : each.value.zones) : var.subnet_ids[zone]]
  capacity_type   = each.value.capacity
  instance_types  = each.value.instance_types
  ami_type        = each.value.gpu ? "AL2023_x86_64_NVIDIA" : "AL2023_x86_64_STANDARD"
  labels          = local.labels[each.key]

  launch_template {
    id      = aws_launch_template.pool[each.key].id
    version = aws_launch_template.pool[each.key].latest_version
  }

  scaling_config {
    min_size     = each.value.min
    max_size     = each.value.max
    desired_size = each.value.min
  }

  update_config {
    max_unavailable = 1
  }

  node_repair_config {
    enabled = true
  }

  # The autoscaler decides how many there are.
  lifecycle {
    ignore_changes = [scaling_config[0].desired_size]
  }

  depends_on = [aws_iam_role_policy_attachment.node, aws_eks_addon.network]

  # Last: tfparse, which evaluates this for the tests, loses a dynamic block before another block.
  dynamic "taint" {
    for_each = local.taints[each.key]

    content {
      key    = taint.value.key
      value  = taint.value.value
      effect = "NO_SCHEDULE"
    }
  }
}

resource "aws_autoscaling_group_tag" "template" {
  for_each = local.template_tags

  autoscaling_group_name = aws_eks_node_group.pool[each.value.pool].resources[0].autoscaling_groups[0].name

  tag {
    key                 = each.value.key
    value               = each.value.value
    propagate_at_launch = false
  }
}
